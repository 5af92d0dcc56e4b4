// The text: prompts and what came of them.

/** Writes text as it comes, at most once per frame, and shows which part of it a token is. */
export class Output {
  #turn = null;
  #pending = "";
  #isDue = false;

  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    this.marks = globalThis.Highlight && CSS.highlights ? new Highlight() : null;
    if (this.marks) CSS.highlights.set("token", this.marks);
  }

  /** Begin with a prompt; what was there stays, if it goes on from it. */
  begin(prompt, goesOn) {
    if (goesOn) this.place.querySelectorAll(".dropped").forEach((turn) => turn.remove());
    else this.place.replaceChildren();
    const turn = document.createElement("div");
    turn.className = "turn";
    const asked = part("prompt", prompt);
    const given = part("given", "");
    turn.append(asked, given);
    this.place.append(turn);
    this.#turn = { turn, given, node: given.firstChild ?? given.appendChild(document.createTextNode("")) };
    this.#pending = "";
    this.mark(-1, -1);
    this.place.scrollTop = this.place.scrollHeight;
  }

  /** Add text to what came; gives where it starts and ends in that. */
  add(text) {
    const start = this.#turn.node.length + this.#pending.length;
    this.#pending += text;
    if (!this.#isDue) {
      this.#isDue = true;
      requestAnimationFrame(() => this.flush());
    }
    return [start, start + text.length];
  }

  /** Write what waits for the next frame. */
  flush() {
    this.#isDue = false;
    if (!this.#pending) return;
    const { place } = this;
    const isAtEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 24;
    this.#turn.node.appendData(this.#pending);
    this.#pending = "";
    if (isAtEnd) place.scrollTop = place.scrollHeight;
  }

  /** Show that the last prompt and its text are no part of what goes on. */
  drop() {
    this.flush();
    this.#turn?.turn.classList.add("dropped");
  }

  /** Mark characters of what came last; -1: none. */
  mark(start, end) {
    if (!this.marks) return;
    this.marks.clear();
    if (start < 0 || end > this.#turn.node.length) return;
    const range = new Range();
    range.setStart(this.#turn.node, start);
    range.setEnd(this.#turn.node, end);
    this.marks.add(range);
  }

  /** All that counts, prompts and texts. */
  get text() {
    this.flush();
    const turns = [...this.place.querySelectorAll(".turn:not(.dropped)")];
    return turns.map((turn) => turn.textContent).join("");
  }
}

function part(kind, text) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = text;
  return made;
}
