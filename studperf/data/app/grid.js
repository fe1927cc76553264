// A table that sorts, filters and turns pages in the browser.
function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const shown = (cell, column) => (cell === null ? "" : typeof cell === "number" ? cell.toFixed(column.digits) : cell);

function before(one, other) {
  if (one === null || other === null) return (one === null) - (other === null);
  return typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true });
}

function render({ model, el }) {
  let sort = { at: -1, down: false };
  let page = 0;
  let rows = [];
  const find = element("input", { type: "search", autocomplete: "off" });
  const count = element("span", { class: "sp-count", role: "status" });
  const back = element("button", { type: "button", class: "sp-button" }, "Earlier rows");
  const next = element("button", { type: "button", class: "sp-button" }, "Later rows");
  const caption = element("caption");
  const head = element("tr");
  const body = element("tbody");
  const table = element("table", {}, caption, element("thead", {}, head), body);
  const scroll = element("div", { class: "sp-scroll", tabindex: "0", role: "region" }, table);
  const tools = element("div", { class: "sp-tools" }, element("label", {}, "Find ", find), count, back, next);

  const select = () => {
    const words = find.value.trim().toLowerCase();
    const columns = model.get("columns");
    rows = model.get("rows");
    if (words) rows = rows.filter((row) => row.some((cell, at) => shown(cell, columns[at]).toLowerCase().includes(words)));
    if (sort.at >= 0) {
      const [at, sign] = [sort.at, sort.down ? -1 : 1];
      const gone = (row) => row[at] === null;
      rows = [...rows].sort((a, b) => (gone(a) || gone(b) ? gone(a) - gone(b) : sign * before(a[at], b[at])));
    }
  };
  const fill = () => {
    const [columns, size] = [model.get("columns"), model.get("page")];
    page = Math.max(0, Math.min(page, Math.ceil(rows.length / size) - 1));
    const part = rows.slice(page * size, (page + 1) * size);
    const cells = (row) => row.map((cell, at) => element("td", { class: columns[at].number ? "n" : null }, shown(cell, columns[at])));
    body.replaceChildren(...part.map((row) => element("tr", {}, ...cells(row))));
    const all = model.get("rows").length;
    const of = rows.length === all ? all.toLocaleString("en") : `${rows.length.toLocaleString("en")} found of ${all.toLocaleString("en")}`;
    count.textContent = part.length ? `Rows ${page * size + 1} to ${page * size + part.length} of ${of}` : "No rows";
    back.disabled = page === 0;
    next.disabled = (page + 1) * size >= rows.length;
    back.hidden = next.hidden = rows.length <= size;
  };
  const heads = () => {
    const columns = model.get("columns");
    const made = columns.map((column, at) => {
      const state = at === sort.at ? (sort.down ? "descending" : "ascending") : null;
      const button = element("button", { type: "button", title: column.help || null }, column.title);
      button.addEventListener("click", () => {
        sort = { at, down: at === sort.at ? !sort.down : false };
        page = 0;
        draw();
        head.children[at].firstChild.focus();
      });
      return element("th", { scope: "col", class: column.number ? "n" : null, "aria-sort": state }, button);
    });
    head.replaceChildren(...made);
  };
  const draw = () => {
    caption.textContent = model.get("caption");
    scroll.setAttribute("aria-label", model.get("caption") || "Table");
    tools.hidden = model.get("rows").length <= 10;
    heads();
    select();
    fill();
  };
  const turn = (by) => () => {
    page += by;
    fill();
    scroll.scrollTop = 0;
  };
  back.addEventListener("click", turn(-1));
  next.addEventListener("click", turn(1));
  find.addEventListener("input", () => {
    page = 0;
    select();
    fill();
  });
  const anew = () => {
    find.value = "";
    [sort, page] = [{ at: -1, down: false }, 0];
    draw();
  };
  model.on("change:columns", anew);
  model.on("change:rows change:caption", draw);
  draw();
  el.append(tools, scroll);
  return () => {
    model.off("change:columns", anew);
    model.off("change:rows change:caption", draw);
  };
}
export default { render };
