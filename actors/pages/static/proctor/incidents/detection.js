/**
 * Detects incidents: many examinees who are lost together, and what they have in common. One incident replaces 300 alarms.
 *
 * Losses within `WINDOW_SECONDS` belong together. The time of the loss counts (which a server gave), not the time of the
 * message: so a wall that was offline, or was just opened, detects the same incidents. The cause is the server, the network
 * prefix (/24, /64), or only the time, whichever separates the lost examinees best from the others (`evidence`). A crowd
 * can have several servers or networks as causes; each is its own incident.
 *
 * Pure: no DOM, no clock; times are ms since the epoch.
 *
 * @typedef {{id: string, at: number, server: string | null, network: string | null, reason: string | null}} Loss
 * @typedef {"lost" | "back" | "out"} Fate `out`: cannot reconnect (shut out, removed, not in the plan)
 * @typedef {"server" | "network" | "moment"} Common
 */

/** Losses further apart than this do not belong together. */
export const WINDOW_SECONDS = 10;
/** Fewer losses are not an incident. */
export const LEAST = 5;
/** So large a share of the plan is an incident, whatever the cause. */
export const SHARE_OF_PLAN = 0.03;
/** So large a share of a server or a network is one, too: a room of 30 in a plan of 2,000. */
export const SHARE_OF_GROUP = 0.3;
/** A server or network must cover this share of the crowd; else the cause is only the time. */
const LEAST_COVERED = 0.5;
/** The least `evidence` for a cause: by chance it is reached once in ten thousand crowds. */
const SURE_ENOUGH = 15.1;
/** Reasons of losses when a server ends: then the server is the cause. */
const OF_THE_SERVER = new Set(["SERVER_LOST", "SERVER_RESTARTED", "SERVER_STOPPED", "SERVER_ISOLATED", "SERVER_DRAINING"]);

/**
 * The network an address belongs to: /24 of IPv4, /64 of IPv6; `null`: not an address.
 * @param {string | null | undefined} address
 */
export function networkOf(address) {
  if (!address) return null;
  const four = /^(?:::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.\d{1,3}$/i.exec(address);
  if (four) return `${four[1]}.${four[2]}.${four[3]}.0/24`;
  const plain = address.split("%")[0].toLowerCase();
  if (!/^[0-9a-f:]+$/.test(plain) || !plain.includes(":")) return null;
  const [head, tail] = plain.split("::");
  const front = head.split(":").filter(Boolean);
  const back = tail?.split(":").filter(Boolean) ?? [];
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length;
  const groups = [...front, .../** @type {string[]} */ (Array(Math.max(0, zeros)).fill("0")), ...back];
  if (groups.length !== 8) return null;
  return `${groups.slice(0, 4).map((one) => one.replace(/^0+(?=.)/, "")).join(":")}::/64`;
}

/**
 * Many who were lost together. `name` of the server or network, empty for a moment. `members`: the
 * fate of each by id; `began` and `last`: the first and latest loss; `ended`: when the last came back or was out, else `null`.
 */
export class Incident {
  /** @param {number} number @param {Common} common @param {string} name */
  constructor(number, common, name) {
    this.number = number;
    this.common = common;
    this.name = name;
    /** @type {Map<string, Fate>} */ this.members = new Map();
    this.began = Infinity;
    this.last = -Infinity;
    /** @type {number | null} */ this.ended = null;
    /** Whether a server's end is the cause: by the name, or by the reason of a first loss. */
    this.ofTheServer = common === "server";
    this.back = 0;
    this.out = 0;
  }

  get size() {
    return this.members.size;
  }

  /** How many are lost and can reconnect. */
  get gone() {
    return this.size - this.back - this.out;
  }

  /** @param {Loss} loss */
  fits(loss) {
    if (this.ended !== null) return false;
    const near = loss.at >= this.began - WINDOW_SECONDS * 1000 && loss.at <= this.last + WINDOW_SECONDS * 1000;
    return near && (this.common === "moment" || loss[this.common] === this.name || this.members.has(loss.id));
  }

  /**
   * Whether a later loss joins this incident. A loss by a server's end does not join an incident with another cause.
   * @param {Loss} loss
   */
  joinedBy(loss) {
    return this.fits(loss) && (this.ofTheServer || !OF_THE_SERVER.has(loss.reason ?? ""));
  }

  /** @param {Loss} loss @param {Fate} fate */
  take(loss, fate) {
    this.began = Math.min(this.began, loss.at);
    this.last = Math.max(this.last, loss.at);
    this.turned(loss.id, fate);
  }

  /** @param {string} id @param {Fate} fate */
  turned(id, fate) {
    const before = this.members.get(id);
    if (before === "back") this.back -= 1;
    else if (before === "out") this.out -= 1;
    if (fate === "back") this.back += 1;
    else if (fate === "out") this.out += 1;
    this.members.set(id, fate);
  }
}

/**
 * Collects losses and comebacks, in any order of their times; `settle()` then returns the new incidents.
 */
export class Incidents {
  constructor() {
    /** All incidents, open and ended, the oldest first. @type {Incident[]} */
    this.all = [];
    /** Losses in no incident; also of examinees who came back within the window, for they count for a crowd. */
    /** @type {Map<string, Loss & {fate: Fate}>} */ this._single = new Map();
    /** The open incident of each lost examinee. @type {Map<string, Incident>} */ this._of = new Map();
    /** Server and network of each examinee, and the number of examinees of each. */
    /** @type {Map<string, {server: string | null, network: string | null}>} */ this._place = new Map();
    /** @type {{server: Map<string, number>, network: Map<string, number>}} */
    this._members = { server: new Map(), network: new Map() };
    this._newest = -Infinity;
    this._made = 0;
    this._dirty = false;
  }

  /** The open incident of an examinee. @param {string} id */
  of(id) {
    return this._of.get(id) ?? null;
  }

  /** The open incidents. */
  get open() {
    return this.all.filter((one) => one.ended === null);
  }

  /**
   * Note where an examinee is (or was last) connected: losses are compared with that.
   * @param {string} id
   * @param {string | null} server
   * @param {string | null} network
   */
  place(id, server, network) {
    const before = this._place.get(id);
    if (before && before.server === server && before.network === network) return;
    this._count(before, -1);
    const now = { server, network };
    this._place.set(id, now);
    this._count(now, 1);
  }

  /** @param {{server: string | null, network: string | null} | undefined} place @param {number} by */
  _count(place, by) {
    if (!place) return;
    for (const common of /** @type {const} */ (["server", "network"])) {
      const name = place[common];
      if (name !== null) this._members[common].set(name, (this._members[common].get(name) ?? 0) + by);
    }
  }

  /**
   * Note a loss at `at`. A repetition of the same loss (an attempt) changes nothing.
   * @param {string} id
   * @param {number} at
   * @param {string | null} reason
   */
  lost(id, at, reason) {
    const known = this._single.get(id);
    if (known?.at === at) {
      known.fate = "lost";
      return;
    }
    const mine = this._of.get(id);
    const place = this._place.get(id) ?? { server: null, network: null };
    const loss = { id, at, reason, ...place };
    this._newest = Math.max(this._newest, at);
    const incident = mine?.joinedBy(loss) ? mine : this.all.find((one) => one.joinedBy(loss));
    if (incident) {
      this._single.delete(id);
      incident.take(loss, "lost");
      this._of.set(id, incident);
      return;
    }
    this._of.delete(id);
    this._single.set(id, { ...loss, fate: "lost" });
    this._dirty = true;
  }

  /**
   * Note that an examinee is connected again, or cannot reconnect.
   * @param {string} id
   * @param {"back" | "out"} fate
   * @param {number} at when, for the end of the incident
   */
  turned(id, fate, at) {
    const single = this._single.get(id);
    if (single) single.fate = fate;
    const incident = this._of.get(id);
    if (!incident) return;
    incident.turned(id, fate);
    if (fate === "back") this._of.delete(id);
    if (incident.gone === 0) this._end(incident, at);
  }

  /** End an incident. @param {Incident} incident @param {number} at */
  _end(incident, at) {
    incident.ended = at;
    for (const id of incident.members.keys()) if (this._of.get(id) === incident) this._of.delete(id);
  }

  /** Forget an examinee who has left the plan. @param {string} id @param {number} at */
  drop(id, at) {
    this.turned(id, "out", at);
    this._single.delete(id);
    this._count(this._place.get(id), -1);
    this._place.delete(id);
  }

  /**
   * Search for crowds among the single losses. Call it after each batch of changes.
   * @returns {Incident[]} the new incidents
   */
  settle() {
    if (!this._dirty) return [];
    this._dirty = false;
    /** @type {Incident[]} */
    const begun = [];
    const window = WINDOW_SECONDS * 1000;
    let singles = [...this._single.values()].sort((a, b) => a.at - b.at);
    let first = 0;
    let end = 0;
    while (singles.length - first >= LEAST) {
      end = Math.max(end, first);
      while (end < singles.length && singles[end].at - singles[first].at <= window) end += 1;
      const causes = this._causes(singles.slice(first, end));
      if (causes.length === 0) {
        first += 1;
        continue;
      }
      for (const cause of causes) begun.push(this._begin(cause, singles.slice(first)));
      singles = singles.filter((loss) => this._single.has(loss.id));
      end = 0; // look at the same window again: the rest may have another cause
    }
    for (const [id, loss] of this._single) {
      if (loss.fate !== "lost" && loss.at < this._newest - window) this._single.delete(id);
    }
    return begun;
  }

  /** @param {{common: Common, name: string}} what @param {(Loss & {fate: Fate})[]} singles in the order of time */
  _begin({ common, name }, singles) {
    this._made += 1;
    const incident = new Incident(this._made, common, name);
    for (const loss of singles) {
      const first = incident.size === 0;
      const fits = first ? common === "moment" || loss[common] === name : incident.fits(loss);
      if (!fits || !this._single.has(loss.id)) continue;
      this._single.delete(loss.id);
      incident.take(loss, loss.fate);
      incident.ofTheServer ||= OF_THE_SERVER.has(loss.reason ?? "");
      if (loss.fate === "lost") this._of.set(loss.id, incident);
    }
    if (incident.gone === 0) incident.ended = incident.last;
    this.all.push(incident);
    return incident;
  }

  /**
   * Return the causes that explain a crowd best: servers, networks, or only the time; empty: not an incident.
   * @param {Loss[]} crowd
   * @returns {{common: Common, name: string}[]}
   */
  _causes(crowd) {
    if (crowd.length < LEAST) return [];
    const everybody = Math.max(this._place.size, crowd.length);
    /** @type {{common: Common, name: string}[]} */
    let best = crowd.length >= SHARE_OF_PLAN * everybody ? [{ common: "moment", name: "" }] : [];
    let bestScore = SURE_ENOUGH;
    for (const common of /** @type {const} */ (["server", "network"])) {
      const groups = [...tally(crowd, common)].map(([name, hit]) => ({
        name,
        hit: hit.length,
        members: Math.max(this._members[common].get(name) ?? 0, hit.length),
        serverEnded: common === "server" && hit.filter((loss) => OF_THE_SERVER.has(loss.reason ?? "")).length >= 0.8 * hit.length,
      }));
      const large = groups.filter(({ hit, members, serverEnded }) => (
        hit >= LEAST && (serverEnded || hit >= SHARE_OF_PLAN * everybody || hit >= SHARE_OF_GROUP * members)));
      const ended = large.filter((group) => group.serverEnded);
      if (ended.length > 0) return ended.map(({ name }) => ({ common, name }));
      large.sort((a, b) => b.hit / b.members - a.hit / a.members);
      let [hit, members] = [0, 0];
      large.forEach((group, at) => {
        hit += group.hit;
        members += group.members;
        const score = hit >= LEAST_COVERED * crowd.length ? evidence(hit, members, crowd.length, everybody) : 0;
        if (score <= bestScore) return;
        bestScore = score;
        best = large.slice(0, at + 1).map(({ name }) => ({ common, name }));
      });
    }
    return best;
  }
}

/**
 * The evidence that the loss hits those with a property more than the others: the G statistic of the four counts (a
 * likelihood ratio; by chance it reaches 10.8 once in a thousand). 0 if the others were hit as often.
 * @param {number} hit of `members`, who have the property
 * @param {number} members
 * @param {number} lost of `everybody`
 * @param {number} everybody
 */
function evidence(hit, members, lost, everybody) {
  const others = everybody - members;
  if (others <= 0 || hit / members <= (lost - hit) / others) return 0;
  /** @type {[number, number][]} */
  const cells = [
    [hit, (members * lost) / everybody],
    [members - hit, (members * (everybody - lost)) / everybody],
    [lost - hit, (others * lost) / everybody],
    [others - (lost - hit), (others * (everybody - lost)) / everybody],
  ];
  return 2 * cells.reduce((sum, [seen, expected]) => sum + (seen > 0 ? seen * Math.log(seen / expected) : 0), 0);
}

/** @param {Loss[]} crowd @param {"server" | "network"} common */
function tally(crowd, common) {
  /** @type {Map<string, Loss[]>} */
  const groups = new Map();
  for (const loss of crowd) {
    const name = loss[common];
    if (name === null) continue;
    const group = groups.get(name);
    if (group) group.push(loss);
    else groups.set(name, [loss]);
  }
  return groups;
}
