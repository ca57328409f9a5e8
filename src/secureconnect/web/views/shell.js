// The whole page: where one signs in, or what one has when one is.

import { app } from "../app.js";
import { h, Part } from "../parts/dom.js";
import { Home } from "./home/home.js";
import { SignIn } from "./signin/signin.js";

export class Shell extends Part {
  build() {
    return () => {
      if (app.session.userId === null) return new SignIn();
      return app.account.value === null ? h("div", { class: "blank", "aria-busy": "true" }) : new Home();
    };
  }
}

customElements.define("sc-shell", Shell);
