// The whole page: where one signs in, what a mail has led to, or what one has when one is signed in.

import { app } from "../app.js";
import { h, Part } from "../parts/dom.js";
import { loadTexts, t } from "../i18n/index.js";
import { lazy, reloading } from "../parts/lazy.js";
import { sheet } from "../parts/sheet.js";
import { ENTRANCES } from "../router.js";
import { computed, effect } from "../store/signal.js";
import { Home } from "./home/home.js";

export class Shell extends Part {
  build() {
    const { router, session, account } = app;
    const room = computed(() => {
      const { name, hash } = router.place.value;
      const isChange = new URLSearchParams(hash).has("change"); // of one's address: for who is signed in
      if (name === "reset") return "reset";
      if (name === "verify" && (session.userId !== null || !isChange)) return "verify";
      if (session.userId === null) return "signin";
      if (app.isBarred.value) return "barred";
      return account.value === null ? "opening" : "home";
    });
    effect(() => {
      if (room.value === "home" && ENTRANCES.has(router.place.value.name)) router.go("/", { replace: true });
    });
    return () => ROOMS[room.value]();
  }
}

const entrance = () =>
  Promise.all([import("./signin/signin.js"), sheet("form"), sheet("signin"), loadTexts("form", "signin")]);
const mailed = () =>
  Promise.all([import("./signin/mailed.js"), sheet("form"), sheet("signin"), loadTexts("form", "signin")]);

/** @type {Record<string, () => import("../parts/dom.js").Child>} */
const ROOMS = {
  reset: () => lazy(mailed, ([{ Reset }]) => new Reset()),
  verify: () => lazy(mailed, ([{ Verify }]) => new Verify()),
  signin: () => lazy(entrance, ([{ SignIn }]) => new SignIn()),
  opening: () => h("div", { class: "blank", "aria-busy": "true" }),
  barred: () => reloading(t("common.barred")),
  home: () => new Home(),
};

customElements.define("sc-shell", Shell);
