"""ECharts options for the page's charts: pure functions of the view."""
