// Run by explore.html, which contains the data, DataTables and Plotly as texts: the images are there before Plotly is read.
const { images, trials, study } = JSON.parse(document.getElementById("data").textContent);
const style = getComputedStyle(document.documentElement);
const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.classList.toggle("dark", isDark);
const { default: DataTable } = await import(makeLink("datatables"));

const escape = DataTable.util.escapeHtml ?? ((text) => new Option(text).innerHTML);
const asText = { display: (value) => escape(String(roundNumber(value, 5) ?? "—")), _: (value) => value };
const listFilter = ["order", ["searchList"]];
const valueFilter = ["order", ["search"]];

function makeLink(id) {
  return URL.createObjectURL(new Blob([document.getElementById(id).textContent], { type: "text/javascript" }));
}

function loadScript(id) {
  const script = document.createElement("script");
  script.src = makeLink(id);
  const loaded = new Promise((resolve) => script.addEventListener("load", resolve));
  document.head.append(script);
  return loaded;
}

// A text that a spreadsheet would execute is marked as a text by an apostrophe, as in the csv files of the study.
function escapeFormula(cell) {
  return typeof cell === "string" ? cell.replace(/^'*[=+\-@\t\r]/, "'$&") : cell;
}

// The title of a column is HTML, and may begin with the name of an arm or of a hyperparameter.
function escapeTitle(title) {
  return escapeFormula(DataTable.Buttons.stripData(title, { stripHtml: true, decodeEntities: true, stripNewlines: true, trim: true }));
}

function roundNumber(value, digits) {
  return typeof value === "number" ? Number(value.toPrecision(digits)) : value;
}

function makeTable(selector, columns, data, name, options) {
  const save = {
    text: "Download JSON",
    action: (event, table) => {
      const { header, body } = table.buttons.exportData({ columns: ":not(.no-export)", orthogonal: "export" });
      const rows = body.map((cells) => Object.fromEntries(cells.map((cell, place) => [header[place], cell])));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([JSON.stringify(rows, null, 1)], { type: "application/json" }));
      link.download = `${study}-${name}.json`;
      link.click();
    },
  };
  const csv = {
    extend: "csv", text: "Download CSV", footer: false, filename: `${study}-${name}`,
    exportOptions: { columns: ":not(.no-export)", orthogonal: "export", format: { header: escapeTitle, body: escapeFormula } },
  };
  document.querySelector(selector).innerHTML = `<thead><tr>${'<th scope="col"></th>'.repeat(columns.length)}</tr></thead>`;
  return new DataTable(selector, {
    columns, data, deferRender: true, scrollX: true, pageLength: 25, autoWidth: false,
    ordering: { indicators: false, handler: false },
    layout: { topStart: ["pageLength", { buttons: [csv, save, { extend: "colvis", text: "Columns" }] }] },
    ...options,
  });
}

function thumbnail(row, tag) {
  const place = images.places[row];
  const sheet = Math.floor(place / images.sheet_size), within = place % images.sheet_size;
  const left = within % images.columns, top = Math.floor(within / images.columns);
  const position = `--left: ${left}; --top: ${top}`;
  return `<${tag} class="thumb sheet${sheet}" data-row="${row}" style="${position}" aria-label="image ${images.ids[row]}"></${tag}>`;
}

function listImageColumns() {
  const names = images.classes;
  const columns = [
    { title: "id", data: (row) => images.ids[row], columnControl: valueFilter },
    { title: "true class", data: (row) => names[images.labels[row]], className: "text", render: asText, columnControl: listFilter },
  ];
  if (images.files.length) {
    columns.splice(1, 0, {
      title: "file", data: (row) => images.files[row], className: "text", render: asText, columnControl: valueFilter,
    });
  }
  if (images.places.length) {
    columns.unshift({
      title: "image", data: (row) => row, className: "no-export", orderable: false, columnControl: [],
      render: { display: (row) => thumbnail(row, "button"), _: (row) => row },
    });
  }
  if (images.arms.length > 1) {
    const disagree = (row) => (new Set(images.arms.map((arm) => arm.predicted[row])).size > 1 ? "yes" : "no");
    columns.push({ title: "arms disagree", data: disagree, className: "text", columnControl: listFilter });
  }
  for (const arm of images.arms) {
    const title = (text) => (images.arms.length > 1 ? `<small>${escape(arm.name)}:</small><br> ${text}` : text);
    const add = (text, values) => columns.push({ title: title(text), data: values, columnControl: valueFilter });
    columns.push({
      title: title("predicted"), data: (row) => names[arm.predicted[row]], className: "text", render: asText, columnControl: listFilter,
    });
    if (arm.num_seeds > 1) {
      add(`correct, of ${arm.num_seeds} seeds`, (row) => Math.round(arm.correct[row] * arm.num_seeds));
      add("agreement of the seeds", (row) => arm.agreement[row]);
    }
    add("confidence", (row) => arm.confidence[row]);
    add("loss", (row) => arm.loss[row]);
  }
  return columns;
}

function openDetail(row) {
  const names = images.classes, label = images.labels[row];
  const lines = images.models.map((model) => {
    const kind = model.predicted[row] === label ? "" : ' class="wrong"';
    const cells = [model.arm, model.seed, names[model.predicted[row]], model.confidence[row], model.of_label[row]];
    return `<tr${kind}>${cells.map((cell) => `<td>${escape(String(cell))}</td>`).join("")}</tr>`;
  });
  const panel = images.panels[images.ids[row]];
  const maps = panel ? `<p><img src="${panel}" alt="heat maps of image ${images.ids[row]}"></p>` : "";
  const detail = document.getElementById("detail");
  detail.innerHTML = `<h2>Image ${escape(String(images.files[row] ?? images.ids[row]))}: ${escape(names[label])}</h2>${thumbnail(row, "div")}
    <div class="wide" tabindex="0"><table><thead><tr><th scope="col">arm</th><th scope="col">seed</th><th scope="col">predicted</th><th scope="col">confidence</th><th scope="col">probability of the true class</th></tr></thead>
    <tbody>${lines.join("")}</tbody></table></div>${maps}<form method="dialog"><button autofocus>Close</button></form>`;
  detail.showModal();
}

function showImages() {
  const columns = listImageColumns();
  const rows = images.ids.map((_, row) => row);
  const loss = columns.findIndex((column) => column.title.endsWith("loss"));
  makeTable("#images", columns, rows, "images", { order: loss < 0 ? [] : [[loss, "desc"]] });
  document.getElementById("images").addEventListener("click", (event) => {
    const button = event.target.closest(".thumb");
    if (button) openDetail(Number(button.dataset.row));
  });
}

// Parallel coordinates as lines of SVG: Plotly's own need WebGL, which remote desktops often lack.
function drawCoordinates() {
  const scaled = trials.axes.map((axis) => {
    const values = axis.values.map((value) => (axis.is_log && value !== null ? Math.log10(value) : value));
    const given = values.filter((value) => value !== null);
    const low = Math.min(...given), high = Math.max(...given);
    const numbers = [0, 0.25, 0.5, 0.75, 1].map((t) => low + t * (high - low));
    const places = axis.texts.length ? axis.texts.map((_, place) => place) : numbers;
    const texts = axis.texts.length ? axis.texts : numbers.map((number) => roundNumber(axis.is_log ? 10 ** number : number, 3));
    const scale = (value) => (value === null ? null : (value - low) / (high - low));
    return { y: values.map(scale), ticks: places.map((place, tick) => ({ y: scale(place), text: String(texts[tick]).slice(0, 18) })) };
  });
  const traces = trials.rows.map((row, place) => ({
    x: scaled.map((_, axis) => axis), y: scaled.map((axis) => axis.y[place]), mode: "lines+markers", connectgaps: true, showlegend: false,
    line: { color: colorOf(row[1]), width: 1.5 }, marker: { size: 5, color: colorOf(row[1]) },
    text: trials.axes.map((axis) => escape(`${axis.label}: ${axis.texts.length ? axis.texts[axis.values[place]] : roundNumber(axis.values[place], 4)}`)),
    hovertemplate: `trial ${row[0]}, %{text}<extra></extra>`,
  }));
  const layout = baseLayout();
  layout.annotations = scaled.flatMap((axis, x) =>
    axis.ticks.map(({ y, text }) => ({ x, y, text: escape(text), showarrow: false, xanchor: "right", xshift: -6, font: { size: 11 } })));
  const labels = trials.axes.map((axis) => escape(axis.label));
  Object.assign(layout.xaxis, { tickvals: labels.map((_, x) => x), ticktext: labels, range: [-0.6, labels.length - 0.8], fixedrange: true });
  Object.assign(layout.yaxis, { range: [-0.06, 1.06], showticklabels: false, showgrid: false, zeroline: false, fixedrange: true });
  Object.assign(layout, { dragmode: "select", margin: { l: 30, r: 20, t: 20, b: 70 } });
  return Plotly.newPlot("coordinates", traces, layout, { responsive: true, displayModeBar: false });
}

// Trials whose lines pass through the selected box on every axis that it covers.
function findSelected({ points, range }) {
  const covered = trials.axes.filter((_, x) => range.x[0] <= x && x <= range.x[1]).length;
  const counts = new Map();
  for (const { curveNumber } of points) counts.set(curveNumber, (counts.get(curveNumber) ?? 0) + 1);
  return new Set([...counts].filter(([, count]) => count === covered).map(([row]) => row));
}

function colorOf(arm) {
  const colors = isDark ? ["#56b4e9", "#e69f00", "#3ec79a", "#cc79a7", "#f0e442"] : ["#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a6d00"];
  const arms = [...new Set(trials.rows.map((row) => row[1]))];
  return colors[arms.indexOf(arm) % colors.length];
}

function baseLayout() {
  const color = style.getPropertyValue("--ink");
  const grid = style.getPropertyValue("--line");
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color }, xaxis: { gridcolor: grid }, yaxis: { gridcolor: grid } };
}

function drawCurves() {
  const traces = trials.curves.map(([x, y], place) => ({
    x, y, mode: x.length > 1 ? "lines" : "markers", name: trials.rows[place][1], legendgroup: trials.rows[place][1],
    showlegend: trials.rows.findIndex((row) => row[1] === trials.rows[place][1]) === place,
    line: { color: colorOf(trials.rows[place][1]), width: 1.5 },
    hovertemplate: `trial ${trials.rows[place][0]}, epoch %{x}: %{y:.3f}<extra></extra>`,
  }));
  const layout = baseLayout();
  layout.xaxis.title = { text: "epoch" };
  layout.yaxis.title = { text: "macro-F1, search split" };
  layout.margin = { l: 60, r: 20, t: 30, b: 50 };
  return Plotly.newPlot("curves", traces, layout, { responsive: true, displaylogo: false });
}

async function showTrials() {
  const isNumber = (place) => trials.rows.every((row) => row[place] === null || typeof row[place] === "number");
  const columns = trials.head.map((title, place) => ({
    title: escape(title), data: (row) => trials.rows[row][place],
    render: asText, className: isNumber(place) ? "" : "text", columnControl: isNumber(place) ? valueFilter : listFilter,
  }));
  const rows = trials.rows.map((_, row) => row);
  const table = makeTable("#trials", columns, rows, "trials", { order: [[4, "desc"]] });
  if (!rows.length) return;
  await drawCurves();
  table.on("draw", () => {
    const selected = new Set(table.rows({ search: "applied" }).data().toArray());
    Plotly.restyle("curves", { opacity: rows.map((row) => (selected.has(row) ? 1 : 0.06)) });
  });
  if (!trials.axes.length) return;
  const plot = await drawCoordinates();
  const select = (selected) => table.search.fixed("box", selected && ((_, row) => selected.has(row))).draw();
  plot.on("plotly_selected", (event) => select(event?.range ? findSelected(event) : null));
  plot.on("plotly_deselect", () => select(null));
}

showImages();
document.documentElement.dataset.ready = "images";
// The table is painted before Plotly, a second's work, is read.
await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 100)));
await loadScript("plotly");
await showTrials();
document.documentElement.dataset.ready = "all";
