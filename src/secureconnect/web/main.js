// Where the page begins.

import { chosenLanguage, language, loadTexts } from "./i18n/index.js";
import { app } from "./app.js";
import { openDoor } from "./views/call/door.js";
import { openEncryptionDoor } from "./views/encryption/door.js";
import { Shell } from "./views/shell.js";

const INSTALL_AFTER_MS = 1_500;

document.documentElement.lang = language;
await loadTexts("common", "error", "chat", "home", "files", "ring");
await app.start();
document.body.replaceChildren(new Shell());
openDoor();
openEncryptionDoor();
// what is not needed to see the page is fetched after it is seen
setTimeout(() => void app.device.begin(chosenLanguage()).catch(unlessCutOff), INSTALL_AFTER_MS);

/** @param {unknown} error a TypeError: without a network the next load of the page does it */
function unlessCutOff(error) {
  if (!(error instanceof TypeError)) reportError(error);
}
