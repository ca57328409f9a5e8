// Where the page begins.

import { language, loadTexts } from "./i18n/index.js";
import { app } from "./app.js";
import { openDoor } from "./views/call/door.js";
import { Shell } from "./views/shell.js";

document.documentElement.lang = language;
await loadTexts("common", "error", "form", "signin", "chat", "files", "ring");
await app.start();
document.body.replaceChildren(new Shell());
openDoor();
