// What is said to those who listen rather than look.

const PAUSE = 5_000;

/** A polite live region that is not talked into all the time. */
export class Announcer {
  #last = 0;

  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
  }

  /** Say what is new, unless something was said just now. */
  mention(text) {
    if (performance.now() - this.#last >= PAUSE) this.say(text);
  }

  /** Say it in any case. */
  say(text) {
    this.#last = performance.now();
    this.place.textContent = text;
  }
}
