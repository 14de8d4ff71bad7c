// A chart drawn from one piece of JSON, which the server makes once for all who look.
import { echarts } from "nicegui-echart";

export default {
  props: { options: String },
  template: "<div></div>",
  mounted() {
    this.chart = echarts.init(this.$el, null, { renderer: "canvas" });
    this.chart.on("click", (event) => this.$emit("componentClick", event));
    this.observer = new ResizeObserver(() => this.chart.resize());
    this.observer.observe(this.$el);
    this.update_chart();
  },
  beforeUnmount() {
    this.observer.disconnect();
    this.chart.dispose();
  },
  methods: {
    update_chart() { // NiceGUI calls it when `options` changed
      if (!this.chart || this.options === this.drawn) return;
      this.drawn = this.options;
      const options = JSON.parse(this.options);
      this.chart.setOption(options, { notMerge: options.series.length !== this.series });
      this.series = options.series.length;
    },
  },
};
