// The map of a recorded chain: steps across, blocks down, colour for the share of heads that read a block.

// Bitmaps of a map, step by step: calls `take(step, bits, blocks)` with the same array every time.
function eachStep(map, flips, take) {
  const heads = map.layers * map.heads, missing = new Set(map.missing);
  const kept = Math.ceil(map.steps / map.stride);
  const bits = new Uint8Array(Math.ceil((blocksAt(map, kept - 1) * heads) / 8));
  let at = 0;
  for (let step = 0; step < kept; step++) {
    const blocks = blocksAt(map, step), bytes = Math.ceil((blocks * heads) / 8);
    for (let i = 0; i < bytes; i++) bits[i] ^= flips[at + i];
    at += bytes;
    take(step, missing.has(step) ? null : bits, blocks);
  }
}

const blocksAt = (map, step) => Math.floor((map.promptTokens - 1 + step * map.stride) / map.block) + 1;

// How many of the chosen heads read each block at each step; 255: not recorded. Sparse rows of a matrix.
function count(map, flips, layer, head) {
  const all = map.layers * map.heads, chosen = [];
  for (let l = 0; l < map.layers; l++)
    for (let h = 0; h < map.heads; h++) if ((layer === "" || l === +layer) && (head === "" || h === +head)) chosen.push(l * map.heads + h);
  const rows = [];
  eachStep(map, flips, (step, bits, blocks) => {
    if (!bits) { rows.push(null); return; }
    const row = new Uint16Array(blocks);
    for (let block = 0; block < blocks; block++) {
      const base = block * all;
      let sum = 0;
      for (const offset of chosen) { const bit = base + offset; sum += (bits[bit >> 3] >> (7 - (bit & 7))) & 1; }
      row[block] = sum;
    }
    rows.push(row);
  });
  return { rows, most: chosen.length };
}

// 0, 3, 7–9
function ranges(numbers) {
  const parts = [];
  for (let i = 0; i < numbers.length; ) {
    let end = i;
    while (numbers[end + 1] === numbers[end] + 1) end++;
    parts.push(end > i ? `${numbers[i]}–${numbers[end]}` : `${numbers[i]}`);
    i = end + 1;
  }
  return parts.length > 24 ? `${parts.slice(0, 24).join(", ")}, …` : parts.join(", ");
}

const MARGIN = { left: 62, bottom: 40, top: 8, right: 10 };

class AttentionMap {
  constructor(root) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.tip = root.querySelector(".tip");
    [this.layer, this.head] = ["layer", "head"].map((name) => root.querySelector(`[data-map="${name}"]`));
    this.idle = this.tip.textContent;
    this.map = null;
    for (const select of [this.layer, this.head]) select.addEventListener("input", () => this.recount());
    for (const button of root.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => this.zoom(+button.dataset.zoom));
    this.canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY); }, { passive: false });
    this.canvas.addEventListener("dblclick", () => this.zoom(0));
    this.canvas.addEventListener("pointerdown", (event) => { this.drag = { x: event.offsetX, y: event.offsetY, view: { ...this.view } }; this.canvas.setPointerCapture(event.pointerId); });
    this.canvas.addEventListener("pointerup", () => { this.drag = null; });
    this.canvas.addEventListener("pointercancel", () => { this.drag = null; });
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerleave", () => { this.cursor = null; this.tip.textContent = this.idle; this.draw(); });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("themechange", () => this.paint());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  // A recorded chain, and the step at which it parts from another; null: none.
  async show(map, colour, parting = null) {
    const same = this.map === map;
    this.map = map;
    this.parting = parting;
    this.root.hidden = !map;
    if (same && map && this.counts) { this.draw(); return; }
    this.image = this.counts = null;
    if (!map) return;
    this.colour = colour;
    const flips = await inflate($(`map-${map.map}`).textContent);
    if (this.map !== map) return; // another chain was opened meanwhile
    this.flips = flips;
    const numbers = (n) => [...Array(n).keys()].map((i) => new Option(i, i));
    this.layer.replaceChildren(new Option("all", ""), ...numbers(map.layers));
    this.head.replaceChildren(new Option(map.merged ? "merged" : "all", ""), ...(map.merged ? [] : numbers(map.heads)));
    this.recount();
    this.zoom(0);
  }

  recount() {
    this.counts = count(this.map, this.flips, this.layer.value, this.head.value);
    this.paint();
  }

  // One pixel a cell, drawn once; moving and zooming only scale it.
  paint() {
    if (!this.map || !this.counts) return;
    const { rows, most } = this.counts, height = blocksAt(this.map, rows.length - 1);
    const rgb = (name) => colourOf(name).match(/\d+/g).slice(0, 3).map(Number);
    const ink = rgb(`--c${this.colour.slice(1)}`), none = rgb("--cdde2e8");
    const image = new OffscreenCanvas(rows.length, height), context = image.getContext("2d");
    const pixels = context.createImageData(rows.length, height);
    rows.forEach((row, x) => {
      const blocks = row ? row.length : height;
      for (let y = 0; y < blocks; y++) {
        const at = 4 * (y * rows.length + x), share = row ? row[y] / most : 0;
        const [r, g, b] = row && share > 0 ? ink : none;
        pixels.data.set([r, g, b, row ? (share > 0 ? 40 + 215 * share : 70) : 255], at);
      }
    });
    context.putImageData(pixels, 0, 0);
    this.image = image;
    this.draw();
  }

  get area() {
    return { width: this.canvas.clientWidth - MARGIN.left - MARGIN.right, height: this.canvas.clientHeight - MARGIN.top - MARGIN.bottom };
  }

  // Zooms around a point of the canvas; 0 shows everything.
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.map) return;
    const steps = this.counts.rows.length, blocks = blocksAt(this.map, steps - 1);
    if (factor === 0) this.view = { x: 0, y: 0, w: steps, h: blocks };
    else {
      const { width, height } = this.area, view = this.view;
      const fx = Math.min(1, Math.max(0, (x - MARGIN.left) / width)), fy = Math.min(1, Math.max(0, (y - MARGIN.top) / height));
      const w = Math.min(steps, Math.max(8, view.w / factor)), h = Math.min(blocks, Math.max(4, view.h / factor));
      this.view = { x: view.x + fx * (view.w - w), y: view.y + fy * (view.h - h), w, h };
      this.clamp();
    }
    this.draw();
  }

  clamp() {
    const steps = this.counts.rows.length, blocks = blocksAt(this.map, steps - 1), view = this.view;
    view.x = Math.min(Math.max(0, view.x), steps - view.w);
    view.y = Math.min(Math.max(0, view.y), blocks - view.h);
  }

  move(event) {
    if (!this.map || !this.view) return;
    if (this.drag) {
      const { width, height } = this.area, { x, y, view } = this.drag;
      this.view = { ...view, x: view.x - ((event.offsetX - x) * view.w) / width, y: view.y - ((event.offsetY - y) * view.h) / height };
      this.clamp();
      this.draw();
      return;
    }
    this.point(event.offsetX, event.offsetY);
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.map || !(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    const [dx, dy] = moves[event.key], steps = this.counts.rows.length;
    const at = this.cursor || { step: 0, block: 0 };
    this.tell(Math.min(Math.max(0, at.step + dx), steps - 1), Math.max(0, at.block + dy));
  }

  point(x, y) {
    const { width, height } = this.area, view = this.view;
    const step = Math.floor(view.x + ((x - MARGIN.left) / width) * view.w), block = Math.floor(view.y + ((y - MARGIN.top) / height) * view.h);
    if (step < 0 || step >= this.counts.rows.length || block < 0 || x < MARGIN.left || y > MARGIN.top + height) return;
    this.tell(step, block);
  }

  // What is under the cursor, in words.
  tell(step, block) {
    const { map, counts } = this, row = counts.rows[step], token = step * map.stride, blocks = blocksAt(map, step);
    this.cursor = { step, block };
    const tip = this.tip, say = (text) => tip.append(text), strong = (text) => tip.append(make("b", "", text));
    tip.replaceChildren();
    strong(`Step ${token}`);
    say(" made ");
    tip.append(make("code", "", shown(map.tokens[token] ?? "")));
    if (!row) say(": not recorded");
    else {
      const read = [...row.keys()].filter((i) => row[i]);
      say(`, read ${read.length} of ${blocks} blocks: ${ranges(read)}.`);
    }
    if (block < blocks && row) {
      const first = block * map.block, last = Math.min(first + map.block, map.promptTokens + token) - 1;
      say(" "), strong(`Block ${block}`);
      say(`, tokens ${first}–${last}${first < map.promptTokens ? " (prompt)" : ""}, read by ${row[block]} of ${counts.most} heads: `);
      const text = [...map.prompt, ...map.tokens].slice(first, last + 1).join("");
      tip.append(make("code", "", shown(text.length > 140 ? `${text.slice(0, 140)}…` : text)));
    }
    this.draw();
  }

  draw() {
    const canvas = this.canvas, ratio = devicePixelRatio || 1, { clientWidth, clientHeight } = canvas;
    if (!this.image || !clientWidth || !this.view) return;
    canvas.width = clientWidth * ratio;
    canvas.height = clientHeight * ratio;
    const context = canvas.getContext("2d"), { width, height } = this.area, view = this.view;
    const muted = colourOf("--muted");
    context.scale(ratio, ratio);
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, MARGIN.top, width, height);
    context.clip();
    const sx = width / view.w, sy = height / view.h;
    context.imageSmoothingEnabled = sx * ratio < 1 || sy * ratio < 1;
    context.drawImage(this.image, MARGIN.left - view.x * sx, MARGIN.top - view.y * sy, this.image.width * sx, this.image.height * sy);
    const line = MARGIN.top + ((this.map.promptTokens / this.map.block) - view.y) * sy;
    context.strokeStyle = muted;
    context.setLineDash([4, 4]);
    context.strokeRect(MARGIN.left - 1, line, width + 2, 0);
    context.setLineDash([]);
    if (this.parting !== null) {
      const x = MARGIN.left + (this.parting / this.map.stride - view.x) * sx;
      context.strokeStyle = colourOf("--bad");
      context.strokeRect(x, MARGIN.top, 0, height);
    }
    if (this.cursor) {
      context.strokeStyle = colourOf("--ink");
      context.strokeRect(MARGIN.left + (this.cursor.step - view.x) * sx - 0.5, MARGIN.top + (this.cursor.block - view.y) * sy - 0.5, Math.max(3, sx + 1), Math.max(3, sy + 1));
    }
    context.restore();
    context.fillStyle = muted;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const tick of ticks(view.y, view.h, height / 34)) context.fillText(tick, MARGIN.left - 6, MARGIN.top + (tick + 0.5 - view.y) * sy);
    context.textAlign = "center";
    for (const tick of ticks(view.x, view.w, width / 90)) context.fillText((tick * this.map.stride).toLocaleString("en"), MARGIN.left + (tick + 0.5 - view.x) * sx, MARGIN.top + height + 12);
    context.fillText("step: the token that was made", MARGIN.left + width / 2, MARGIN.top + height + 30);
    context.save();
    context.translate(11, MARGIN.top + height / 2);
    context.rotate(-Math.PI / 2);
    context.fillText(`block of ${this.map.block} tokens`, 0, 0);
    context.restore();
    if (line > MARGIN.top + 18 && line < MARGIN.top + height) {
      context.textAlign = "right";
      const text = "prompt ↑", wide = context.measureText(text).width, right = MARGIN.left + width - 6;
      context.fillStyle = colourOf("--card");
      context.fillRect(right - wide - 4, line - 18, wide + 8, 15);
      context.fillStyle = muted;
      context.fillText(text, right, line - 10);
    }
  }
}

// Round numbers within a view, about so many.
function ticks(start, length, wanted) {
  const rough = length / Math.max(1, wanted), power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, Math.round([1, 2, 5, 10].find((m) => m * power >= rough) * power));
  const found = [];
  for (let tick = Math.ceil(start / step) * step; tick < start + length; tick += step) found.push(tick);
  return found;
}

// A colour variable as rgb(), of the theme that holds now.
function colourOf(name) {
  const probe = $("probe");
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

// White space that can be seen.
const shown = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "(special token)";
