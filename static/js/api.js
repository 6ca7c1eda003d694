/** The gateway's HTTP routes, as functions. Every failure is an `ApiError` with the gateway's own code. */

export class ApiError extends Error {
  /** @param {string} message @param {string} code @param {number} status 0: the gateway did not answer */
  constructor(message, code, status) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryable = status === 0 || status >= 500;
  }
}

export class Api {
  /** Asked for a key on 401; answers whether the request may be tried again. */
  onUnauthorized = async () => false;

  /** @returns {Promise<{models: import("./types.js").Model[], default: string | null, allow_pull: boolean}>} */
  models() {
    return this.#request("GET", "/api/models");
  }

  /** @returns {Promise<{presets: import("./types.js").Preset[], default: string | null, only: boolean}>} */
  presets() {
    return this.#request("GET", "/api/presets");
  }

  /** @param {unknown} body @returns {Promise<{id: string, url: string, kind: string, model: string}>} */
  createStream(body) {
    return this.#request("POST", "/api/streams", body);
  }

  /** Stop a stream nobody reads yet. @param {string} url */
  deleteStream(url) {
    return this.#request("DELETE", url);
  }

  /** Trade the key for a cookie: EventSource cannot send an Authorization header. @param {string} key */
  async signIn(key) {
    await this.#fetch("POST", "/api/session", undefined, { Authorization: `Bearer ${key}` });
  }

  /** @param {string} method @param {string} url @param {unknown} [body] @returns {Promise<any>} */
  async #request(method, url, body) {
    // One key for all tries: an answer that is lost on the way costs nothing.
    const headers = { "Idempotency-Key": `${Math.random()}${Math.random()}` };
    for (let tries = 1; ; tries++) {
      try {
        const response = await this.#fetch(method, url, body, headers);
        return response.status === 204 ? null : await response.json();
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        const lost = body && (!error.status || error.code.startsWith("http_5"));
        if (lost && tries < 3) await new Promise((resolve) => setTimeout(resolve, 1_000));
        else if (error.status !== 401 || !(await this.onUnauthorized())) throw error;
      }
    }
  }

  /** @param {string} method @param {string} url @param {unknown} body @param {Record<string, string>} headers */
  async #fetch(method, url, body, headers) {
    let response;
    try {
      response = await fetch(url, {
        method,
        headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
        body: body === undefined ? null : JSON.stringify(body),
      });
    } catch {
      throw new ApiError("", "gateway_unreachable", 0);
    }
    if (response.ok) return response;
    // A proxy in between answers in HTML.
    const { error = response.statusText, code = `http_${response.status}` } = await response.json().catch(() => ({}));
    throw new ApiError(error, code, response.status);
  }
}
