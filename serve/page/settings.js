// The form's settings, as a request has them.

import { Failure } from "./api.js";

const NUMBERS = {
  max_tokens: "max-tokens",
  temperature: "temperature",
  top_p: "top-p",
  seed: "seed",
  top_k: "top-k",
  min_p: "min-p",
  repetition_penalty: "repetition-penalty",
};
const WHOLE = new Set(["max_tokens", "seed", "top_k"]);

/** All settings that are filled in; throws a Failure, and shows its field, for one that is no number. */
export function settingsOf(form) {
  const found = {};
  for (const [name, id] of Object.entries(NUMBERS)) {
    const field = form.elements[id];
    const value = numberIn(field, WHOLE.has(name));
    field.setAttribute("aria-invalid", String(value === null));
    if (value === null) refuse(field);
    if (value !== undefined) found[name] = value;
  }
  const stop = form.elements["stop-texts"].value.split("\n").filter(Boolean).map(unescaped);
  if (stop.length) found.stop = stop;
  return found;
}

/** undefined: the field is empty; null: it holds something else than such a number. */
function numberIn(field, isWhole) {
  if (field.validity.badInput) return null;
  if (field.value === "") return undefined;
  const value = field.valueAsNumber;
  const isFit = Number.isFinite(value) && (!isWhole || Number.isSafeInteger(value));
  return isFit && !field.validity.rangeUnderflow && !field.validity.rangeOverflow ? value : null;
}

function refuse(field) {
  const details = field.closest("details");
  if (details) details.open = true;
  field.focus();
  const kind = field.step === "1" ? "a whole number" : "a number";
  const range = [field.min && `at least ${field.min}`, field.max && `at most ${field.max}`].filter(Boolean).join(" and ");
  throw new Failure(`${field.labels[0].firstChild.textContent.trim()} must be ${kind}${range && `, ${range}`}.`);
}

function unescaped(text) {
  return text.replace(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]);
}
