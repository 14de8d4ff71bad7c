// The page's own script: the choice of colours, and a watch on the connection, which the server cannot keep.
(() => {
  const key = "intentstream-theme";
  const said = () => document.body.classList.contains("body--dark");
  window.themeNow = () => localStorage.getItem(key) || "auto";
  window.setTheme = (value) => {
    localStorage.setItem(key, value);
    Quasar.Dark.set(value === "auto" ? "auto" : value === "dark");
  };
  window.watchTheme = () => {
    window.setTheme(window.themeNow());
    let last = null;
    const tell = () => { if (said() !== last) { last = said(); emitEvent("theme", last); } };
    new MutationObserver(tell).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    tell();
    document.addEventListener("visibilitychange", () => emitEvent("hidden", document.hidden));
    if (document.hidden) emitEvent("hidden", true);
  };
})();

(() => {
  const SILENT_MS = 6000; // the server sends something every 4 s at least
  let heard = Date.now();
  let watched = null;
  let lost = false;
  const hear = () => { heard = Date.now(); };
  const look = () => {
    const socket = window.socket;
    if (!socket) return;
    if (socket !== watched) {
      watched = socket;
      hear();
      socket.onAny(hear);
      socket.on("connect", hear);
      socket.io.on("ping", hear);
      socket.on("connect", look);
      socket.on("disconnect", look);
    }
    const now = (window.did_handshake && !socket.connected) || Date.now() - heard > SILENT_MS;
    if (now === lost) return;
    lost = now;
    document.body.classList.toggle("lost", lost);
    const title = document.querySelector(".standing .unheard");
    if (title) {
      const since = new Date(heard).toISOString().slice(11, 19);
      title.textContent = lost ? `No connection to the monitor since ${since} UTC; everything below is as of then.` : "";
    }
  };
  setInterval(look, 500);
})();
