// A dialog that keeps the focus while it is there, and gives it back.

import { h } from "../../parts/dom.js";
import { onEnd } from "../../store/signal.js";

/** @import { Child } from "../../parts/dom.js" */

/**
 * isFirm: one of its buttons must be chosen; else Esc does what `close` says.
 * @param {{ label: string, class?: string, isFirm?: boolean, close?: () => void }} how
 * @param {...Child} children
 */
export function modal({ label, class: kind = "", isFirm = false, close }, ...children) {
  const before = document.activeElement;
  const dialog = h(
    "dialog",
    {
      class: `call-dialog ${kind}`,
      "aria-label": label,
      oncancel: (/** @type {Event} */ event) => {
        event.preventDefault();
        if (!isFirm) close?.();
      },
    },
    ...children,
  );
  queueMicrotask(() => dialog.isConnected && !dialog.open && dialog.showModal());
  onEnd(() => {
    dialog.close();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
  });
  return dialog;
}
