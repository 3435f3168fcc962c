const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const image = byId("image"), scores = byId("scores"), ratio = byId("ratio");
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const bits = (text) => [...atob(text)].flatMap((byte) => [...byte.charCodeAt(0).toString(2).padStart(8, "0")].map(Number));
const percent = (share) => `${+(100 * share).toFixed(1)}\u00a0%`;

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// Of every cell of every raster: where it is, how large, and which visual token it shows.
const cells = data.rasters.flatMap((raster) => raster.tokens.map((token, index) => {
  const width = raster.width / raster.columns, height = raster.height / raster.rows;
  const row = Math.floor(index / raster.columns), column = index % raster.columns;
  return { token, row, column, width, height, x: raster.x + column * width, y: raster.y + row * height, raster, index };
}));

const squares = (wanted) => cells.filter(wanted).map((c) => `M${c.x} ${c.y}h${c.width}v${c.height}h${-c.width}z`).join("");

function dots(received) {
  return cells.filter((c) => received[c.token]).map((c) => {
    const r = 0.17 * Math.min(c.width, c.height);
    return `M${c.x + c.width / 2 - r} ${c.y + c.height / 2}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
  }).join("");
}

function outline(left) {
  return cells.map((c) => {
    const at = (index) => left[c.raster.tokens[index]], here = left[c.token];
    const side = c.column && at(c.index - 1) !== here ? `M${c.x} ${c.y}v${c.height}` : "";
    return side + (c.row && at(c.index - c.raster.columns) !== here ? `M${c.x} ${c.y}h${c.width}` : "");
  }).join("");
}

function show() {
  const strategy = chosen("strategy"), ids = chosen("ids");
  const all = data.outcomes.filter((one) => one.strategy === strategy && one.ids === ids).sort((a, b) => a.ratio - b.ratio);
  all.push(data.unpruned);
  // A strategy may stand at other keep ratios than the one before: stay as near as can be.
  const wanted = show.ratio ?? all[Math.max(0, all.findIndex((one) => one.ratio >= 0.25))].ratio;
  const nearest = all.reduce((best, one) => Math.abs(one.ratio - wanted) < Math.abs(best.ratio - wanted) ? one : best);
  ratio.max = all.length - 1;
  ratio.value = all.indexOf(nearest);
  draw(nearest, `${strategy}, ${ids} position IDs`);
  ratio.oninput = () => {
    show.ratio = all[ratio.value].ratio;
    draw(all[ratio.value], `${strategy}, ${ids} position IDs`);
  };
}

function draw(one, name) {
  const unpruned = one === data.unpruned, entered = bits(one.entered), left = bits(one.left), received = bits(one.received);
  const of = unpruned ? "unpruned" : `${name}, ${percent(one.ratio)}`;
  byId("percent").textContent = percent(one.ratio);
  ratio.setAttribute("aria-valuetext", `${percent(one.ratio)}, ${one.tokens}`);
  byId("tokens").textContent = one.tokens;
  image.querySelector(".dropped").setAttribute("d", squares((c) => !entered[c.token]));
  image.querySelector(".later").setAttribute("d", squares((c) => entered[c.token] && !left[c.token]));
  image.querySelector(".received").setAttribute("d", dots(received));
  image.querySelector(".outline").setAttribute("d", outline(left));
  scores.querySelector(".outline").setAttribute("d", one.heat ? outline(left) : "");
  boxes("unpruned", data.unpruned.boxes);
  boxes("pruned", unpruned ? [] : one.boxes);
  image.setAttribute("aria-label", `The image with ${one.tokens} clear and the others dark: ${of}`);
  heat(one, unpruned);
  byId("of").textContent = of;
  byId("answer").textContent = one.answer || "(no answer)";
  byId("unpruned").textContent = data.unpruned.answer || "(no answer)";
  byId("verdict").textContent = one.verdict;
  byId("costs").replaceChildren(...one.costs.map(cost));
}

function boxes(name, wanted) {
  const drawn = [...image.querySelectorAll(`.${name}`)];
  if (drawn.length !== 2 * wanted.length) {
    for (const element of drawn) element.remove();
    for (const box of wanted.flatMap((one) => [`halo ${name}`, name])) image.append(svg("rect", { class: box }));
  }
  [...image.querySelectorAll(`.${name}`)].forEach((element, index) => {
    const [x, y, width, height] = wanted[index >> 1];
    for (const [key, value] of Object.entries({ x, y, width, height })) element.setAttribute(key, value);
  });
}

function heat(one, unpruned) {
  const images = (one.heat ?? []).map((number, index) => {
    const { x, y, width, height } = data.rasters[index];
    return svg("image", { class: "heat", href: data.heats[number], x, y, width, height, preserveAspectRatio: "none" });
  });
  scores.querySelector("g").replaceChildren(...images);
  const nothing = one.heat ? "" : unpruned ? "unpruned: nothing is ranked" : `${one.strategy.split(" ")[0]} ranks no tokens`;
  scores.querySelector("text").textContent = nothing;
  scores.setAttribute("aria-label", nothing || "Importance of each visual token, from dark for least to bright for most");
  byId("scored").textContent = one.scored;
}

function cost([name, share, words]) {
  const group = document.createElement("div"), term = document.createElement("dt"), value = document.createElement("dd");
  term.textContent = name;
  value.textContent = words;
  const bar = document.createElement("dd"), inner = document.createElement("div");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  inner.style.width = `${Math.min(100, 100 * share)}%`;
  bar.append(inner);
  group.append(term, value, bar);
  return group;
}

for (const input of document.querySelectorAll('input[type="radio"]')) input.addEventListener("change", show);
show();
