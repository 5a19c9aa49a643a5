// Tables that sort and filter, figures, and a button that copies. Texts become text nodes, never HTML.
"use strict";
(() => {
  const PAGE = 100;
  const root = document.body.dataset.root;
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const svg = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  const KEY = /^[0-9a-f]{20}$/;
  const cells = {
    rank: value => [value[1], ...(value[2] ? [" ", make("span", { class: "mark", title: "no method is surely better" }, "top")] : [])],
    number: value => [value[1]],
    bar: value => {
      const drawing = svg("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" });
      drawing.append(svg("line", { x1: value[1], x2: value[3], y1: 6, y2: 6 }), svg("line", { class: "middle", x1: value[2], x2: value[2], y1: 1, y2: 11 }));
      return [drawing, " ", make("span", {}, value[4])];
    },
    links: value => value.flatMap(([text, key]) => KEY.test(key) ? [make("a", { href: `${root}/records/${key}.html`, "aria-label": `seed ${text}` }, text), " "] : [text, " "]),
    text: value => [value],
  };
  const sortable = (kind, value) => kind === "text" ? value.toLowerCase() : kind === "links" ? value.length : value[0];
  const shown = (kind, value) => kind === "text" ? value : kind === "links" ? "" : String(value[value.length - (kind === "rank" ? 2 : 1)]);

  const ranking = section => {
    const { columns, rows } = JSON.parse(section.querySelector("script.rows").textContent);
    const table = section.querySelector("table");
    const body = table.tBodies[0];
    const controls = section.querySelector(".controls");
    const texts = rows.map(row => columns.map((column, index) => shown(column.kind, row[index])).join(" ").toLowerCase());
    const state = { sort: -1, down: false, page: 0, words: [], chosen: new Map() };
    const told = make("span", { role: "status" });
    const [back, on] = ["Previous", "Next"].map(text => make("button", { type: "button", class: "plain" }, text));
    const pages = make("div", { class: "pages" }, told, back, on);
    section.querySelector(".scroll").after(pages);

    const line = row => {
      const made = make("tr", row[0][2] ? { class: "tied" } : {});
      columns.forEach((column, index) => made.append(make("td", { class: column.kind + (column.detail ? " detail" : "") }, ...cells[column.kind](row[index]))));
      return made;
    };
    const draw = () => {
      let order = rows.map((_, index) => index).filter(index =>
        state.words.every(word => texts[index].includes(word)) &&
        [...state.chosen].every(([column, value]) => rows[index][column] === value));
      if (state.sort >= 0) {
        const kind = columns[state.sort].kind;
        const keys = rows.map(row => sortable(kind, row[state.sort]));
        const sign = state.down ? -1 : 1;
        // What has no value comes last either way.
        order.sort((a, b) => (keys[a] === null) - (keys[b] === null) ||
          sign * (typeof keys[a] === "string" ? (keys[a] < keys[b] ? -1 : keys[a] > keys[b] ? 1 : 0) : keys[a] - keys[b]) || a - b);
      }
      const last = Math.max(0, Math.ceil(order.length / PAGE) - 1);
      state.page = Math.min(state.page, last);
      const part = order.slice(state.page * PAGE, (state.page + 1) * PAGE);
      body.replaceChildren(...part.map(index => line(rows[index])));
      const first = order.length ? state.page * PAGE + 1 : 0;
      told.textContent = order.length > PAGE || order.length < rows.length ? `${first} to ${first + part.length - (part.length ? 1 : 0)} of ${order.length} methods` : "";
      back.hidden = on.hidden = !last;
      back.disabled = state.page === 0;
      on.disabled = state.page === last;
    };

    table.tHead.querySelectorAll("th").forEach((head, index) => {
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const number = columns[index].kind === "number" || columns[index].kind === "bar";
        state.down = state.sort === index ? !state.down : number;
        [state.sort, state.page] = [index, 0];
        table.tHead.querySelectorAll("th").forEach(each => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        draw();
      });
    });
    const search = make("input", { type: "search", placeholder: "words", autocomplete: "off", maxlength: 200 });
    search.addEventListener("input", () => {
      [state.words, state.page] = [search.value.toLowerCase().split(/\s+/).filter(Boolean), 0];
      draw();
    });
    controls.append(make("label", {}, "Filter", search));
    columns.forEach((column, index) => {
      const values = column.choice ? [...new Set(rows.map(row => row[index]))].sort() : [];
      if (values.length < 2) return;
      const select = make("select", {}, make("option", { value: "" }, "all"), ...values.map((value, place) => make("option", { value: place }, value)));
      select.addEventListener("change", () => {
        if (select.value === "") state.chosen.delete(index); else state.chosen.set(index, values[select.value]);
        state.page = 0;
        draw();
      });
      controls.append(make("label", {}, column.title, select));
    });
    const more = make("button", { type: "button", class: "plain more", "aria-pressed": "false" }, "All columns");
    more.addEventListener("click", () => more.setAttribute("aria-pressed", table.classList.toggle("all")));
    controls.append(more);
    controls.hidden = false;
    back.addEventListener("click", () => { state.page -= 1; draw(); });
    on.addEventListener("click", () => { state.page += 1; draw(); });
    draw();
  };

  // --- figures -------------------------------------------------------------------------------------------------------

  // Okabe and Ito's colours, which colour-blind readers can tell apart; on a dark page the light ones come first.
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#882255"];
  const ON_DARK = ["#56b4e9", "#e69f00", "#33c39d", "#e5a3c7", "#f08a4b", "#f0e442", "#bbbbbb", "#4f9fd6"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const clear = "rgba(0,0,0,0)";
  const themed = layout => {
    const style = getComputedStyle(document.documentElement);
    const [ink, line, card] = ["--ink", "--line", "--card"].map(name => style.getPropertyValue(name).trim());
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
    const axes = Object.fromEntries(Object.keys(layout).filter(name => /axis/.test(name)).map(name => {
      const { title, ...rest } = layout[name];
      return [name, { ...axis, ...rest, ...(title ? { title: { text: title } } : {}) }];
    }));
    return {
      ...layout, ...axes, paper_bgcolor: clear, plot_bgcolor: clear, font: { color: ink, family: "system-ui, sans-serif", size: 12 },
      colorway: dark.matches ? ON_DARK : COLOURS, margin: { l: 50, r: 20, t: 20, b: 40 }, hoverlabel: { bgcolor: card, font: { color: ink } },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", bgcolor: clear }, showlegend: !layout.box,
    };
  };
  const figures = [...document.querySelectorAll("figure > script")].map(script => {
    const found = JSON.parse(script.textContent);
    if (found.data.every(trace => trace.type === "box")) found.layout.box = true;
    return [script.parentElement.querySelector(".plot"), found];
  });
  const drawn = new Map();
  const draw = (place, { data, layout }) => {
    const { box, ...rest } = themed(layout);
    window.Plotly.react(place, data, rest, { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
    drawn.set(place, { data, layout });
  };
  let library = null;
  const loaded = () => library ??= new Promise((resolve, reject) => {
    const script = make("script", { src: `${root}/assets/plotly.min.js` });
    script.addEventListener("load", resolve);
    script.addEventListener("error", reject);
    document.head.append(script);
  });
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      const [, figure] = figures.find(([place]) => place === entry.target);
      loaded().then(() => draw(entry.target, figure), () => entry.target.append("plotly.min.js is missing beside this page."));
    }
  }, { rootMargin: "200px" });
  figures.forEach(([place]) => seen.observe(place));
  dark.addEventListener("change", () => drawn.forEach((figure, place) => draw(place, figure)));

  // --- commands ------------------------------------------------------------------------------------------------------

  document.querySelectorAll(".command").forEach(command => {
    const button = make("button", { type: "button", class: "plain" }, "Copy");
    const text = command.querySelector("pre");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected";
      }
    });
    command.append(button);
  });

  document.querySelectorAll("section.ranking").forEach(ranking);
  document.documentElement.dataset.ready = "yes";
})();
