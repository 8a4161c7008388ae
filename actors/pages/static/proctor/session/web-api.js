/** Requests of the wall to the web server: data of its plan, with the proctor's token. */

/** The web server refused a request. The message is its own (problem+json, RFC 9457), or the status. */
export class Refused extends Error {
  /** @param {number} status @param {string} why */
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

/** The web server's answers about one plan. `token` and `plan` may be replaced. */
export class WebApi {
  /** @param {string} token @param {string} plan @param {() => number} now ms since the epoch, by the servers' clock */
  constructor(token, plan, now) {
    this.token = token;
    this.plan = plan;
    /** Called when the token is no longer accepted. */ this.expired = () => {};
    this.now = now;
  }

  /**
   * Request something about the plan. Rejects with `Refused`, or with the browser's error if there is no answer.
   * @param {string} path of the plan (`/examinees/…`)
   */
  async get(path) {
    const { token } = this;
    const headers = { Authorization: `Bearer ${token}` };
    const url = `/v1/plans/${encodeURIComponent(this.plan)}${path}`;
    const response = await fetch(url, { headers, cache: "no-store", credentials: "omit" });
    if (response.ok) return response;
    if (response.status === 401 && token === this.token) this.expired();
    // An answer that is not JSON is from a proxy.
    const json = /[/+]json\b/.test(response.headers.get("Content-Type") ?? "");
    throw new Refused(response.status, (json ? (await response.json()).detail : null) ?? String(response.status));
  }
}
