// The pages work without this. It keeps the overview fresh: while the page is visible
// and nobody is busy in it, its live part is fetched again and put in place.
"use strict";

const live = document.querySelector("[data-live]");
const period = 5000;

function busy() {
  return document.hidden || live.contains(document.activeElement) || !document.getSelection().isCollapsed;
}

async function refresh() {
  if (!busy()) {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.querySelector("[data-live]");
        if (fresh && !busy() && fresh.innerHTML !== live.innerHTML) {
          live.replaceChildren(...fresh.childNodes);
        }
      }
    } catch {
      // keytrail is away or the session is over: the page stays as it was.
    }
  }
  setTimeout(refresh, period);
}

if (live) {
  setTimeout(refresh, period);
}

// A link to an event opens its data.
function open() {
  const details = document.getElementById(location.hash.slice(1))?.querySelector("details");
  if (details) {
    details.open = true;
  }
}
addEventListener("hashchange", open);
open();
