// A table that sorts, filters and turns pages in the browser.
const PAUSE = 150; // ms after the last key in Find
const PRINTED = 5000; // rows at most; a hundred thousand would keep the browser for minutes
const collator = new Intl.Collator("en", { numeric: true });

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const shown = (cell, column) => (cell === null ? "" : typeof cell === "number" ? cell.toFixed(column.digits) : cell);

const compare = (one, other) => (typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other));

function sorted(rows, { at, down }) {
  const [there, gone] = [rows.filter((row) => row[at] !== null), rows.filter((row) => row[at] === null)];
  return [...there.sort((a, b) => (down ? compare(b[at], a[at]) : compare(a[at], b[at]))), ...gone];
}

function render({ model, el }) {
  let sort = { at: -1, down: false };
  let page = 0;
  let width = 0; // columns
  let ordered = []; // all rows
  let rows = []; // those that were found
  let timer = null;
  let printing = false;
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
    const text = find.value.trim().toLowerCase();
    const columns = model.get("columns");
    rows = text ? ordered.filter((row) => row.some((cell, at) => shown(cell, columns[at]).toLowerCase().includes(text))) : ordered;
  };
  const fill = () => {
    const [columns, size] = [model.get("columns"), model.get("page")];
    page = Math.max(0, Math.min(page, Math.ceil(rows.length / size) - 1));
    const from = printing ? 0 : page * size;
    const part = rows.slice(from, from + (printing ? PRINTED : size));
    const cells = (row) => row.map((cell, at) => element("td", { class: columns[at].number ? "n" : null }, shown(cell, columns[at])));
    body.replaceChildren(...part.map((row) => element("tr", {}, ...cells(row))));
    const all = model.get("rows").length;
    const of = rows.length === all ? all.toLocaleString("en") : `${rows.length.toLocaleString("en")} found of ${all.toLocaleString("en")}`;
    const told = part.length ? `Rows ${(from + 1).toLocaleString("en")} to ${(from + part.length).toLocaleString("en")} of ${of}` : "No rows";
    if (count.textContent !== told) count.textContent = told; // otherwise it is read out again
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
    if (model.get("columns").length !== width) anew(); // other titles of the same columns: it stays sorted
    caption.textContent = model.get("caption");
    scroll.setAttribute("aria-label", model.get("caption") || "Table");
    tools.hidden = model.get("rows").length <= 10;
    heads();
    ordered = sort.at < 0 ? model.get("rows") : sorted(model.get("rows"), sort);
    select();
    fill();
  };
  const anew = () => {
    clearTimeout(timer);
    find.value = "";
    [sort, page, width] = [{ at: -1, down: false }, 0, model.get("columns").length];
  };
  const turn = (button, by) => () => {
    page += by;
    fill();
    scroll.scrollTop = 0;
    if (button.disabled) scroll.focus({ preventScroll: true }); // a disabled button loses the focus
  };
  back.addEventListener("click", turn(back, -1));
  next.addEventListener("click", turn(next, 1));
  find.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      page = 0;
      select();
      fill();
    }, PAUSE);
  });
  const print = (event) => {
    printing = event.type === "beforeprint";
    fill();
  };
  for (const name of ["beforeprint", "afterprint"]) window.addEventListener(name, print);
  model.on("change", draw);
  draw();
  el.append(tools, scroll);
  return () => {
    clearTimeout(timer);
    for (const name of ["beforeprint", "afterprint"]) window.removeEventListener(name, print);
    model.off("change", draw);
  };
}
export default { render };
