// The page of a member: what is shown when, and keys.
import { Conversation } from "./chat.js";
import { About, Banners, Join, Locked, Nobody, People, Settings, Side, Wait } from "./panels.js";
import { html } from "./parts.js";
import * as store from "./store.js";
import { S } from "./store.js";
import { T } from "./texts.js";
import { render, useEffect, useState } from "./vendor.js";

// A dialog of the file that is loaded when one is wanted.
const later = (name) => (props) => {
	const [dialogs, setDialogs] = useState({});
	useEffect(() => void import("./dialogs.js").then(setDialogs, () => (store.panel(null), store.fail({ message: T.reload }))), []);
	return dialogs[name] ? html`<${dialogs[name]} ...${props} />` : null;
};
const Details = later("Details");
const PANELS = { people: People, settings: Settings, about: About, verify: later("Verify") };

function App() {
	const { open, panel } = S;
	if (S.link === "locked") return html`<${Locked} />`;
	if (!S.ready) return html`<${Wait} />`;
	const joins = !store.isMember() && !S.org.removed && !S.talks.size;
	return html`<div class="column"><${Banners} />${joins ? html`<${Join} />` : html`<div class="frame"><${Side} />
			<main class=${open === null && "behind"}>${open === null ? html`<${Nobody} />` : html`<${Conversation} person=${open} />`}</main></div>`}</div>
		${PANELS[panel] && html`<${PANELS[panel]} person=${open} />`}${panel?.m && html`<${Details} m=${panel.m} />`}`;
}

addEventListener("keydown", (e) => {
	if (S.panel) return;
	const search = document.getElementById("search"), step = e.altKey && { ArrowDown: 1, ArrowUp: -1 }[e.key];
	if (step) {
		const all = store.sorted(), next = all[all.findIndex((c) => c.person === S.open) + step];
		if (next) store.open(next.person);
	} else if (e.key === "Escape" && S.toast) store.set({ toast: null });
	else if (e.key === "Escape" && S.open !== null) {
		store.open(null);
		search?.focus();
	} else if (!(e.ctrlKey && e.key === "k")) return;
	else search?.focus();
	e.preventDefault();
});
for (const name of ["focus", "visibilitychange"]) addEventListener(name, () => store.read(S.open));

const root = document.getElementById("app");
root.textContent = "";
store.begin(() => {
	const unread = store.unread();
	document.title = unread ? `(${unread}) ${T.shoal}` : T.shoal;
	render(html`<${App} />`, root);
});
