// A table drawn from one piece of JSON. Ids come from outside: Vue puts all of them in as text.
export default {
  props: { caption: String, heads: String, rows: String, empty: String },
  template: `
    <div class="tablebox">
      <table v-if="list.length">
        <caption class="sr">{{ caption }}</caption>
        <thead><tr><th v-for="head in names" scope="col">{{ head }}</th></tr></thead>
        <tbody>
          <tr v-for="row in list">
            <component v-for="([text, href, mark, kind], i) in row" :is="i ? 'td' : 'th'" :scope="i ? null : 'row'"
              :class="kind || null" :data-label="names[i]">
              <i v-if="mark" class="mark" aria-hidden="true" :style="{ background: mark }"></i>
              <a v-if="href" class="link" :href="href">{{ text }}</a><span v-else>{{ text }}</span>
            </component>
          </tr>
        </tbody>
      </table>
      <p v-else class="empty">{{ empty }}</p>
    </div>`,
  computed: {
    names() { return JSON.parse(this.heads); },
    list() { return JSON.parse(this.rows); },
  },
};
