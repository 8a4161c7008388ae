/** What the wall asks the web server: about its plan, with the proctor's token, and what time it is. */

/** A clock that is wrong by less (ms) is right enough: that is all that the `Date` of an answer can tell. */
const RIGHT_ENOUGH_MS = 2000;

/** What the web server does not give, and why: its own words (problem+json, RFC 9457), or the status alone. */
export class Refused extends Error {
  /** @param {number} status @param {string} why */
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

export class Web {
  /** @param {string} token @param {string} plan */
  constructor(token, plan) {
    this.token = token;
    this.plan = plan;
    /** What to do when the token is not accepted any more. */ this.expired = () => {};
    this._skew = 0;
  }

  /**
   * Rejects with `Refused`, or with what the browser says when nothing answers.
   * @param {string} path of the plan (`/examinees/…`)
   */
  async get(path) {
    const { token } = this;
    const headers = { Authorization: `Bearer ${token}` };
    const url = `/v1/plans/${encodeURIComponent(this.plan)}${path}`;
    const response = await fetch(url, { headers, cache: "no-store", credentials: "omit" });
    if (response.ok) return response;
    if (response.status === 401 && token === this.token) this.expired();
    // What a proxy says instead is none of it.
    const json = /[/+]json\b/.test(response.headers.get("Content-Type") ?? "");
    throw new Refused(response.status, (json ? (await response.json()).detail : null) ?? String(response.status));
  }

  /** Ms since the epoch by the servers' clock. */
  now() {
    return Date.now() + this._skew;
  }

  /** A computer whose clock is wrong would count wrongly. */
  async findSkew() {
    const asked = Date.now();
    try {
      const response = await fetch("/healthz", { cache: "no-store" });
      const told = Date.parse(response.headers.get("Date") ?? "");
      const skew = told + 500 - (asked + Date.now()) / 2; // `Date` has whole seconds
      if (Math.abs(skew) > RIGHT_ENOUGH_MS) this._skew = skew;
    } catch {
      return; // the web server is away: this computer's clock is what there is
    }
  }
}
