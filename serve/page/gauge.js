// The server's slots and queue, asked for while the page is in sight.

import { Failure } from "./api.js";

const SOON = 300;
const BUSY_EVERY = 1_000;
const IDLE_EVERY = 3_000;
const RAREST = 30_000;
const MOST_CELLS = 32;

/** Polls a server's status, more rarely while it does not answer. */
export class Gauge {
  #timer = 0;
  #failures = 0;
  #isAsking = false;
  #isNew = false;

  /**
   * @param {{cells: HTMLElement, text: HTMLElement}} parts
   * @param {() => Promise<object>} ask gives the status
   * @param {(status: object) => void} onStatus
   */
  constructor(parts, ask, onStatus) {
    this.parts = parts;
    this.ask = ask;
    this.onStatus = onStatus;
    this.model = "";
    this.isBusy = false;
    document.addEventListener("visibilitychange", () => this.now());
  }

  /** Ask at once, soon again, and from then on, unless nobody looks. */
  now() {
    this.#failures = 0;
    this.#isNew = true; // what was begun or ended just now may not show yet
    clearTimeout(this.#timer);
    if (!document.hidden) this.#poll();
  }

  async #poll() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    try {
      const status = await this.ask();
      this.#failures = 0;
      this.show(status);
      this.onStatus(status);
    } catch (error) {
      this.#failures += 1;
      this.#say(error instanceof Failure && error.status === 401 ? "Needs an access token" : "Server can't be reached");
    } finally {
      this.#isAsking = false;
    }
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => this.#poll(), this.#pause());
  }

  #pause() {
    const usual = this.#isNew ? SOON : this.isBusy ? BUSY_EVERY : IDLE_EVERY;
    this.#isNew = false;
    return Math.min(RAREST, usual * 2 ** this.#failures);
  }

  /** Show the load of the chosen model. */
  show(status) {
    const found = status.models?.find((model) => model.id === this.model) ?? status.models?.[0];
    if (!found) return this.#say("Serves no model");
    const { slots, running, reading, waiting } = found;
    const notes = [`${running + reading} of ${slots} slots busy`];
    if (reading) notes.push(`${reading} reading`);
    notes.push(found.queue === undefined ? `${waiting} waiting` : `${waiting} of ${found.queue} waiting`);
    this.parts.text.textContent = notes.join(" · ");
    this.#fill(slots, running, reading);
  }

  #fill(slots, running, reading) {
    const count = Math.min(slots, MOST_CELLS);
    const scale = count / slots;
    const busy = Math.ceil(running * scale);
    const read = Math.ceil((running + reading) * scale);
    const kinds = Array.from({ length: count }, (_, index) => (index < busy ? "running" : index < read ? "reading" : "free"));
    if (this.parts.cells.dataset.kinds === kinds.join()) return;
    this.parts.cells.dataset.kinds = kinds.join();
    this.parts.cells.replaceChildren(
      ...kinds.map((kind) => {
        const cell = document.createElement("i");
        cell.className = kind;
        return cell;
      }),
    );
  }

  #say(text) {
    this.parts.text.textContent = text;
    this.parts.cells.replaceChildren();
    delete this.parts.cells.dataset.kinds;
  }
}
