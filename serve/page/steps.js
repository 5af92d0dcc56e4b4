// What the steps of a text took.

/** Seconds of steps, all together and by the largest stride that fired in them. */
export class Steps {
  #all = [];
  #byStride = new Map();

  get count() {
    return this.#all.length;
  }

  add(seconds, stride) {
    this.#all.push(seconds);
    if (!this.#byStride.has(stride)) this.#byStride.set(stride, []);
    this.#byStride.get(stride).push(seconds);
  }

  /** Seconds that so large a share of the steps stay within; NaN without steps. */
  quantile(share) {
    return quantileOf(this.#all, share);
  }

  /** `[stride, steps, median seconds]`, the largest stride first. */
  byStride() {
    const strides = [...this.#byStride.keys()].sort((a, b) => b - a);
    return strides.map((stride) => {
      const steps = this.#byStride.get(stride);
      return [stride, steps.length, quantileOf(steps, 0.5)];
    });
  }

  /** Milliseconds at the top of a chart that shows what is usual, and cuts off what is not. */
  top() {
    if (!this.#all.length) return 1;
    const usual = this.byStride().map(([, , median]) => 1.3 * median);
    return round(1000 * Math.max(1.25 * this.quantile(0.95), ...usual));
  }
}

/** Of unsorted numbers: the smallest that so large a share of them reaches. */
export function quantileOf(numbers, share) {
  if (!numbers.length) return NaN;
  const sorted = Float64Array.from(numbers).sort();
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

/** The next number that can be read off an axis, and its half. */
function round(milliseconds) {
  const unit = 10 ** Math.floor(Math.log10(milliseconds));
  return unit * [1, 2, 4, 6, 10].find((step) => step * unit >= milliseconds * (1 - 1e-9));
}

/** Seconds as milliseconds with three digits. */
export function inMilliseconds(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const ms = 1000 * seconds;
  return ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : ms.toFixed(0);
}
