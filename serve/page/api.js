// Requests to the server that the page came from, and what their failures mean in words.

import { eventsOf } from "./events.js";

/** What a request failed with. */
export class Failure extends Error {
  /**
   * @param {string} message for people
   * @param {number} status of the response; 0: there was none, or it broke off
   * @param {string} code the server's word for it
   */
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** JSON of a path. */
export async function getJson(path, token) {
  const response = await ask(path, { headers: headersFor(token), cache: "no-store", signal: AbortSignal.timeout(10_000) });
  try {
    return await response.json();
  } catch {
    throw new Failure("The server's answer was cut off.");
  }
}

/** Let the server drop something; one that can't be reached drops it in time by itself. */
export function forget(path, token, headers = {}) {
  fetch(path, { method: "DELETE", headers: { ...headersFor(token), ...headers } }).catch(() => {});
}

/**
 * Chunks of a streamed completion, until it is done.
 * @param {object} body of the request, without what makes it a stream
 * @param {object} headers beside those that every request has
 */
export async function* completionOf(body, token, signal, headers = {}) {
  const response = await ask("v1/completions", {
    method: "POST",
    headers: { ...headersFor(token), ...headers, "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, foveal: true }),
    signal,
  });
  try {
    for await (const data of eventsOf(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Failure(`The server ended the text: ${sentence(messageOf(chunk))}`, 500);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof Failure || signal.aborted) throw error;
    throw cutOff();
  }
  throw cutOff();
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted && error.name !== "TimeoutError") throw error;
    throw new Failure("The server can't be reached. Is it running, and this device connected?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Failure(inWords(response, sentence(messageOf(answer))), response.status, answer?.error?.code ?? "");
}

function headersFor(token) {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function inWords(response, message) {
  switch (response.status) {
    case 401:
    case 403:
      return `The server asks for another access token than it got. ${message}`.trim();
    case 409:
      return `The session can't go on. ${message}`.trim();
    case 429: {
      const seconds = Number(response.headers.get("Retry-After"));
      const when = seconds > 0 ? `Try again in ${seconds === 1 ? "a second" : `${seconds} seconds`}.` : "Try again in a while.";
      return `The server is full. ${when} ${message}`.trim();
    }
    case 503:
      return `The server takes no requests now. ${message}`.trim();
    default:
      return response.status < 500
        ? `The server refused the request. ${message}`.trim()
        : `The server failed (${response.status}). ${message}`.trim();
  }
}

/** Of OpenAI's form of errors, or of FastAPI's own. */
function messageOf(answer) {
  const found = answer?.error?.message ?? answer?.error ?? answer?.detail ?? "";
  if (typeof found === "string") return found;
  return Array.isArray(found) ? found.map((one) => one?.msg ?? "").join("; ") : "";
}

function sentence(message) {
  if (!message) return "";
  const begun = message[0].toUpperCase() + message.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

function cutOff() {
  return new Failure("The connection broke off before the text ended; what came is kept here.");
}
