// The firing timeline: a column for each token, a row for each stage, and below them what the step took.
//
// Only the columns in sight are drawn, at most once per frame: a long text costs no more than a short one.

import { inMilliseconds, Steps } from "./steps.js";

const PITCH = 9;
const CELL = 7;
const BARS = 104;
const GAP = 14;
const TICKS = 20;
const TICK_EVERY = 10;
const SCALES = 6; // colours in page.css

/**
 * @typedef {{position: number, text: string, fired: string[], seconds: number}} Token
 * @typedef {{name: string, stride: number}} Stage
 */

/** Draws tokens, and lets a pointer or the keyboard go through them. */
export class Timeline {
  #tokens = [];
  #masks = [];
  #stages = [];
  #counts = [];
  #cursor = -1;
  #isFollowing = true;
  #isDue = false;
  #colours = null;
  #scaleOf = new Map();
  #top = { milliseconds: 1, count: 0 };

  /**
   * @param {object} parts elements by name: scroller, spacer, canvas, rows, axisTop, axisMiddle, legend, readout, summary, body
   * @param {(index: number) => void} onPoint is told of the token that is looked at, -1 for none
   */
  constructor(parts, onPoint) {
    this.parts = parts;
    this.onPoint = onPoint;
    this.steps = new Steps();
    this.hint = parts.readout.textContent;
    this.#listen();
    this.begin([]);
  }

  /** Forget all tokens. @param {Stage[]} stages in dataflow order */
  begin(stages) {
    this.#tokens = [];
    this.#masks = [];
    this.steps = new Steps();
    this.#isFollowing = true;
    this.#top = { milliseconds: 1, count: 0 };
    this.#setStages(stages);
    this.parts.scroller.scrollLeft = 0;
    this.parts.body.replaceChildren();
    this.#point(-1);
    this.refresh();
  }

  /** @param {Token} token */
  add(token) {
    const missing = token.fired.filter((name) => !this.#stages.some((stage) => stage.name === name));
    if (missing.length) this.#addStages(missing);
    const mask = this.#maskOf(token.fired);
    this.#stages.forEach((_, row) => (this.#counts[row] += (mask >> row) & 1));
    if (this.#tokens.length) this.steps.add(token.seconds, this.#strideOf(mask)); // the first took the prompt, too
    this.#tokens.push(token);
    this.#masks.push(mask);
    this.#request();
  }

  get length() {
    return this.#tokens.length;
  }

  /** Firings of each stage, coarse to fine. */
  get fires() {
    return this.#stages.map((stage, row) => ({ name: stage.name, fires: this.#counts[row] }));
  }

  /** Bring up to date what need not be at every frame: the axis, the counts, the table and the summaries. */
  refresh() {
    const { axisTop, axisMiddle, rows, summary } = this.parts;
    const top = this.#axisTop();
    axisTop.textContent = this.steps.count ? `${decimal(top)} ms` : "";
    axisMiddle.textContent = this.steps.count ? decimal(top / 2) : "";
    [...rows.children].forEach((row, index) => (row.lastChild.textContent = `×${this.#counts[index]}`));
    this.#fillLegend();
    summary.textContent = this.inWords();
    this.#fillTable();
    this.#request();
  }

  /** What it shows, for those who don't see it. */
  inWords() {
    if (!this.#tokens.length) return "No tokens yet.";
    const fires = this.fires.map(({ name, fires }) => `${name} ${fires}`).join(", ");
    const medians = this.steps.byStride().map(([stride, , median]) => `${inMilliseconds(median)} ms when ${what(stride)} fires`);
    const took = medians.length ? ` Median step: ${medians.join(", ")}.` : "";
    return `${this.#tokens.length} tokens. Firings: ${fires}.${took}`;
  }

  // Stages.

  #setStages(stages) {
    this.#stages = [...stages].sort((a, b) => b.stride - a.stride); // stable: dataflow order within a scale
    this.#counts = this.#stages.map(() => 0);
    const strides = [...new Set(this.#stages.map((stage) => stage.stride))].reverse(); // fine to coarse
    this.#scaleOf = new Map(strides.map((stride, index) => [stride, Math.min(index, SCALES - 1)]));
    this.#fillRows();
  }

  #addStages(names) {
    const old = this.#stages;
    const counts = new Map(this.fires.map(({ name, fires }) => [name, fires]));
    const named = (mask) => old.filter((_, row) => (mask >> row) & 1).map((stage) => stage.name);
    const fired = this.#masks.map(named);
    this.#setStages([...old, ...names.map((name) => ({ name, stride: Number.parseInt(name, 10) || 1 }))]);
    this.#counts = this.#stages.map((stage) => counts.get(stage.name) ?? 0);
    this.#masks = fired.map((one) => this.#maskOf(one));
  }

  #maskOf(fired) {
    let mask = 0;
    this.#stages.forEach((stage, row) => (mask |= fired.includes(stage.name) ? 1 << row : 0));
    return mask;
  }

  #strideOf(mask) {
    return this.#stages.find((_, row) => (mask >> row) & 1)?.stride ?? 1;
  }

  /** Of the axis; found anew as steps come, less and less often. */
  #axisTop() {
    const { count } = this.steps;
    if (count < 64 ? count !== this.#top.count : count >= 1.1 * this.#top.count) {
      this.#top = { milliseconds: this.steps.top(), count };
    }
    return this.#top.milliseconds;
  }

  // Elements.

  #fillRows() {
    this.parts.rows.replaceChildren(
      ...this.#stages.map((stage) => {
        const row = document.createElement("li");
        row.dataset.scale = String(this.#scaleOf.get(stage.stride));
        row.append(element("b", stage.name), element("span", `every ${stage.stride}`), element("i", "×0"));
        return row;
      }),
    );
  }

  #fillLegend() {
    this.parts.legend.replaceChildren(
      ...this.steps.byStride().map(([stride, count, median]) => {
        const item = document.createElement("li");
        item.dataset.scale = String(this.#scaleOf.get(stride));
        item.append(
          element("span", String(stride)),
          element("b", `${inMilliseconds(median)} ms`),
          element("span", `×${count}`),
        );
        return item;
      }),
    );
  }

  #fillTable() {
    const { body, details } = this.parts;
    if (!details.open) return;
    const fresh = document.createDocumentFragment();
    for (let index = body.children.length; index < this.#tokens.length; index += 1) {
      const token = this.#tokens[index];
      const row = document.createElement("tr");
      const text = element("td", visible(token.text));
      text.className = "code";
      row.append(element("td", String(token.position)), text, element("td", this.#firedAt(index)), element("td", inMilliseconds(token.seconds)));
      fresh.append(row);
    }
    body.append(fresh);
  }

  #firedAt(index) {
    return this.#stages.filter((_, row) => (this.#masks[index] >> row) & 1).map((stage) => stage.name).join(", ");
  }

  // Looking at one token.

  #listen() {
    const { scroller, details } = this.parts;
    scroller.addEventListener("scroll", () => {
      this.#isFollowing = scroller.scrollLeft + scroller.clientWidth >= scroller.scrollWidth - 2 * PITCH;
      this.#request();
    });
    scroller.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.#point(this.#indexAt(event)));
    scroller.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.#point(-1));
    scroller.addEventListener("click", (event) => this.#point(this.#indexAt(event)));
    scroller.addEventListener("keydown", (event) => this.#onKey(event));
    scroller.addEventListener("focus", () => scroller.matches(":focus-visible") && this.#cursor < 0 && this.#go(this.length - 1));
    scroller.addEventListener("blur", () => this.#point(-1));
    details.addEventListener("toggle", () => this.#fillTable());
    new ResizeObserver(() => this.#request()).observe(scroller);
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => {
        this.#colours = null;
        this.#request();
      });
    }
  }

  #indexAt(event) {
    const { scroller } = this.parts;
    const x = event.clientX - scroller.getBoundingClientRect().left + scroller.scrollLeft;
    const index = Math.floor(x / PITCH);
    return index < this.length ? index : -1;
  }

  #onKey(event) {
    const page = Math.max(1, Math.floor(this.parts.scroller.clientWidth / PITCH) - 1);
    const goal = {
      ArrowLeft: this.#cursor - 1,
      ArrowDown: this.#cursor - 1,
      ArrowRight: this.#cursor + 1,
      ArrowUp: this.#cursor + 1,
      PageDown: this.#cursor - page,
      PageUp: this.#cursor + page,
      Home: 0,
      End: this.length - 1,
    }[event.key];
    if (goal === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#go(goal);
  }

  #go(index) {
    if (!this.length) return;
    const { scroller } = this.parts;
    const goal = Math.min(Math.max(index, 0), this.length - 1);
    const left = goal * PITCH;
    if (left < scroller.scrollLeft) scroller.scrollLeft = left;
    if (left + PITCH > scroller.scrollLeft + scroller.clientWidth) scroller.scrollLeft = left + PITCH - scroller.clientWidth;
    this.#isFollowing = goal === this.length - 1;
    this.#point(goal);
  }

  #point(index) {
    const { scroller, readout } = this.parts;
    this.#cursor = index;
    const token = this.#tokens[index];
    scroller.setAttribute("aria-valuemax", String(Math.max(0, this.length - 1)));
    if (token) {
      const took = `${inMilliseconds(token.seconds)} ms${index ? "" : " since the request"}`;
      scroller.setAttribute("aria-valuenow", String(index));
      scroller.setAttribute("aria-valuetext", `${visible(token.text)}, position ${token.position}, fired ${this.#firedAt(index)}, ${took}`);
      readout.replaceChildren(
        element("b", visible(token.text)),
        ` at ${token.position}: ${this.#firedAt(index)}; `,
        element("b", took),
      );
    } else {
      scroller.setAttribute("aria-valuetext", this.length ? `${this.length} tokens` : "No tokens yet");
      readout.textContent = this.hint;
    }
    this.onPoint(token ? index : -1);
    this.#request();
  }

  // Drawing.

  #request() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.draw();
    });
  }

  /** Draw the columns in sight. */
  draw() {
    const { scroller, spacer, canvas, rows } = this.parts;
    this.#colours ??= this.#readColours();
    const heights = [...rows.children].map((row) => row.offsetHeight);
    const rowsHeight = heights.reduce((sum, height) => sum + height, 0);
    const width = scroller.clientWidth;
    const height = rowsHeight + GAP + BARS + TICKS;
    spacer.style.width = `${Math.max(width, this.length * PITCH + 2)}px`;
    if (this.#isFollowing && this.length) scroller.scrollLeft = scroller.scrollWidth;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const left = scroller.scrollLeft;
    const first = Math.max(0, Math.floor(left / PITCH));
    const last = Math.min(this.length, Math.ceil((left + width) / PITCH));
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (this.#cursor >= first && this.#cursor < last) this.#drawCursor(pen, this.#cursor * PITCH - left, height - TICKS);
    this.#drawRows(pen, heights, first, last, left);
    this.#drawBars(pen, rowsHeight + GAP, first, last, left, width);
  }

  #drawCursor(pen, x, height) {
    pen.fillStyle = this.#colours.cursor;
    pen.fillRect(x, 0, PITCH, height);
  }

  #drawRows(pen, heights, first, last, left) {
    let y = 0;
    this.#stages.forEach((stage, row) => {
      const middle = y + heights[row] / 2;
      const high = Math.min(12, heights[row] - 6);
      pen.fillStyle = this.#colourOf(stage.stride);
      pen.globalAlpha = 0.28; // what it gave last is read until it fires again
      pen.fillRect(first * PITCH - left, middle - 1, (last - first) * PITCH, 2);
      pen.globalAlpha = 1;
      for (let index = first; index < last; index += 1) {
        if ((this.#masks[index] >> row) & 1) pen.fillRect(index * PITCH - left + (PITCH - CELL) / 2, middle - high / 2, CELL, high);
      }
      y += heights[row];
    });
  }

  #drawBars(pen, y, first, last, left, width) {
    const bottom = y + BARS;
    const top = this.#axisTop() / 1000;
    pen.fillStyle = this.#colours.line;
    for (const share of this.steps.count ? [0, 0.5, 1] : [0]) pen.fillRect(0, Math.round(bottom - share * BARS), width, 1);
    for (let index = first; index < last; index += 1) {
      const x = index * PITCH - left + (PITCH - CELL) / 2;
      const share = this.#tokens[index].seconds / top;
      const high = Math.max(1, Math.min(1, share) * BARS);
      pen.fillStyle = pen.strokeStyle = this.#colourOf(this.#strideOf(this.#masks[index]));
      if (index === 0) {
        pen.strokeRect(x + 0.5, bottom - high + 0.5, CELL - 1, high - 1); // hollow: it took the prompt, too
      } else {
        pen.fillRect(x, bottom - high, CELL, high);
      }
      if (share > 1) pen.clearRect(x - 1, bottom - BARS + 5, CELL + 2, 3); // a gap: it goes on beyond the axis
    }
    this.#drawTicks(pen, bottom, first, last, left, width);
  }

  #drawTicks(pen, bottom, first, last, left, width) {
    pen.fillStyle = this.#colours.text;
    pen.font = this.#colours.font;
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (let index = first; index < last; index += 1) {
      const { position } = this.#tokens[index];
      if (position % TICK_EVERY) continue;
      const x = index * PITCH - left + PITCH / 2;
      pen.fillRect(Math.round(x), bottom + 1, 1, 4);
      const half = pen.measureText(String(position)).width / 2;
      pen.fillText(String(position), Math.min(Math.max(x, half), width - half), bottom + 7);
    }
  }

  #colourOf(stride) {
    return this.#colours.scales[this.#scaleOf.get(stride) ?? 0];
  }

  #readColours() {
    const style = getComputedStyle(this.parts.scroller);
    const named = (name) => style.getPropertyValue(name).trim();
    return {
      scales: Array.from({ length: SCALES }, (_, index) => named(`--scale-${index}`)),
      line: named("--line"),
      text: named("--muted"),
      cursor: named("--cursor"),
      font: `11px ${style.fontFamily}`,
    };
  }
}

/** A token's text such that it can be seen. */
export function visible(text) {
  if (text === "") return "(part of a character)";
  return `“${text.replaceAll("\n", "↵").replaceAll("\t", "⇥")}”`;
}

function what(stride) {
  return stride === 1 ? "only stride 1" : `stride ${stride}`;
}

function decimal(number) {
  return String(Number(number.toPrecision(3)));
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
