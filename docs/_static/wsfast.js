// What scrolls can be scrolled by the keyboard: code, tables and figures that are wider than the page.
"use strict";
function reachable() {
  for (const box of document.querySelectorAll("pre, .table-wrapper, .figure-svg")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("load", reachable);
// Two landmarks of one kind need names.
addEventListener("load", () => {
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "This page");
});
addEventListener("resize", reachable);
