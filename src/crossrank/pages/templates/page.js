"use strict";
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  // The page's colours stand in its style sheet; figures name them as var(--c0), or var(--c0-band) for a faint one.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    const band = name.endsWith("-band)");
    probe.style.color = name.replace("-band)", ")");
    const found = getComputedStyle(probe).color;
    return band ? found.replace("rgb(", "rgba(").replace(")", ", 0.18)") : found;
  };
  const coloured = (value, key = "") => {
    if (Array.isArray(value)) return value.map((one) => coloured(one, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, coloured(one, name)]));
    }
    return key.endsWith("color") && typeof value === "string" && value.startsWith("var(--") ? colour(value) : value;
  };

  const look = () => {
    const line = "var(--line)", ink = "var(--ink)", paper = "var(--paper)";
    const axis = {
      gridcolor: line, zerolinecolor: "var(--muted)", linecolor: line, tickcolor: line, automargin: true,
      title: { standoff: 10 },
    };
    return coloured({
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: [0, 1, 2, 3, 4, 5].map((i) => `var(--c${i})`),
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
        margin: { l: 52, r: 12, t: 12, b: 44 }, xaxis: { ...axis, zeroline: false }, yaxis: axis,
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
        hoverlabel: { bgcolor: paper, bordercolor: line, font: { color: ink }, namelength: -1 },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--muted)", activecolor: ink },
      },
    });
  };

  const figures = [...document.querySelectorAll(".plot")];
  const draw = async () => {
    const coarse = matchMedia("(pointer: coarse), (max-width: 55rem)").matches; // there a finger scrolls the page
    for (const place of figures) {
      const { data, layout } = JSON.parse(place.closest("figure").querySelector("script").textContent);
      const shown = { ...coloured(layout), template: look(), colorway: look().layout.colorway };
      if (coarse) shown.dragmode = false;
      const settings = { responsive: true, displaylogo: false, displayModeBar: coarse ? false : "hover", typesetMath: false };
      await Plotly.react(place, coloured(data), shown, settings);
    }
  };

  const unpack = async () => {
    const packed = atob(document.getElementById("plotly").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    Plotly.setPlotConfig({ logging: 0 });
  };

  const theme = document.getElementById("theme");
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  const redraw = () => { name(); if (window.Plotly) draw(); };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; redraw(); });
  system.addEventListener("change", redraw);
  name();

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "descending" || !head.classList.contains("number")
        && head.getAttribute("aria-sort") !== "ascending";
      const sign = falls ? 1 : -1; // numbers fall at first, words rise
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "ascending" : "descending");
      const key = (row) => row.cells[column];
      const order = (a, b) => {
        const [x, y] = [a, b].map((row) => key(row).dataset.value);
        if (x === undefined || y === undefined) {
          if (x !== y) return x === undefined ? 1 : -1; // what has no number comes last, whichever way
          return sign * key(a).textContent.localeCompare(key(b).textContent, undefined, { numeric: true });
        }
        return sign * (x - y);
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    }));
  }

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(target.id).setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -80% 0px" });
  document.querySelectorAll(".chapter").forEach((chapter) => seen.observe(chapter));

  if (figures.length) {
    unpack().then(draw).then(() => { root.dataset.drawn = "true"; }, (error) => {
      for (const place of figures.filter((one) => !one.firstChild)) place.textContent = `This browser cannot draw the figure: ${error.message}`;
      console.error(error);
    });
  } else root.dataset.drawn = "true";
}
