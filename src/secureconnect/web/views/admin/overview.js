// How much there is of everything, and how the server and what it depends on are.

import { app } from "../../app.js";
import { ago, bytes, number, refused, t } from "../../i18n/index.js";
import { h, Part, when } from "../../parts/dom.js";
import { icon } from "../../parts/icons.js";
import { effect, onEnd, signal } from "../../store/signal.js";

/**
 * @typedef {{ name: string, kind: string, place: string, status: string, breaker: string | null, since: string,
 *   last_error: string | null, affects: string[] }} Dependency
 * @typedef {{ node_id: string, version: string, started_at: string, renewed_at: string }} Node
 * @typedef {{ modules: Record<string, string>, dependencies: Dependency[], nodes: Node[] }} Health
 */

const STATES = new Set(["running", "starting", "restarting", "stopped", "up", "down"]);
const EVERY_MS = 10_000;
const COUNTS = [
  "users",
  "admins",
  "banned",
  "sessions",
  "sockets",
  "conversations",
  "messages",
  "files",
  "file_bytes",
  "open_reports",
];

export class Overview extends Part {
  stats = signal(/** @type {Record<string, number> | null} */ (null));
  health = signal(/** @type {Health | null} */ (null));
  error = signal("");

  build() {
    const timer = setInterval(() => void this.read(), EVERY_MS);
    onEnd(() => clearInterval(timer));
    effect(() => {
      void app.state.degraded.value; // something went, or is back
      void this.read();
    });
    return [
      h("p", { class: "problem", role: "alert", hidden: () => !this.error.value }, () => this.error.value),
      h("h2", null, t("admin.health")),
      () => this.healthOf(this.health.value),
      h("h2", null, t("admin.counts")),
      h("dl", { class: "counts" }, () => this.countsOf(this.stats.value)),
    ];
  }

  async read() {
    const { client } = app;
    const [stats, health] = await Promise.allSettled([
      client.ask("GET", "/v1/admin/stats"),
      client.ask("GET", "/v1/admin/health"),
    ]);
    if (stats.status === "fulfilled") this.stats.value = stats.value;
    if (health.status === "fulfilled") this.health.value = health.value;
    const failed = [stats, health].find((each) => each.status === "rejected");
    this.error.value = failed ? refused(failed.reason) : "";
  }

  /** @param {Record<string, number> | null} stats */
  countsOf(stats) {
    if (stats === null) return null;
    return COUNTS.map((name) =>
      h(
        "div",
        null,
        h("dt", null, t(`admin.count.${name}`)),
        h("dd", null, name === "file_bytes" ? bytes(stats[name]) : number(stats[name])),
      ),
    );
  }

  /** @param {Health | null} health */
  healthOf(health) {
    if (health === null) return h("p", null, t("common.loading"));
    const places = health.dependencies.map((each) => each.place);
    const folder = places.find((place, at) => places.indexOf(place) !== at); // what several share is said once
    return [
      folder === undefined ? null : h("p", null, t("admin.folder", { folder })),
      h(
        "ul",
        { class: "health" },
        Object.entries(health.modules).map(([name, state]) =>
          standing(name, state === "running", t("admin.module"), state),
        ),
        health.dependencies.map((each) =>
          standing(each.name, each.status === "up", each.place === folder ? "" : each.place, each.status, [
            t("admin.changed", { when: ago(each.since) }),
            each.status === "up" ? null : (each.last_error ?? null),
          ]),
        ),
      ),
      h("h3", null, t("admin.nodes")),
      h(
        "ul",
        { class: "health" },
        health.nodes.map((node) =>
          h(
            "li",
            null,
            h("strong", null, node.node_id.slice(-8)),
            h("span", null, t("admin.version", { version: node.version })),
            h("small", null, t("admin.started", { when: ago(node.started_at) })),
          ),
        ),
      ),
    ];
  }
}

/**
 * One thing and how it is: said by a word and a mark, not by colour alone.
 * @param {string} name
 * @param {boolean} isWell
 * @param {string} place
 * @param {string} state
 * @param {(string | null)[]} [more]
 */
function standing(name, isWell, place, state, more = []) {
  return h(
    "li",
    { class: isWell ? "well" : "ill" },
    icon(isWell ? "check" : "warning"),
    h("strong", null, name),
    h("span", null, STATES.has(state) ? t(`admin.state.${state}`) : state),
    h("small", null, [place, ...more].filter(Boolean).join(" · ")),
  );
}

customElements.define("sc-admin-overview", Overview);
