// The page of a member: what is shown when, and keys.
import { Conversation } from "./chat.js";
import { Banners, Join, Locked, Nobody, Side, Wait } from "./panels.js";
import { html } from "./parts.js";
import * as store from "./store.js";
import { S } from "./store.js";
import { T } from "./texts.js";
import { render, useEffect, useState } from "./vendor.js";

// A dialog of a file that is loaded when it is wanted.
const later = (file, name) => (props) => {
	const [dialogs, setDialogs] = useState({});
	useEffect(() => void import(file).then(setDialogs, () => (store.panel(null), store.fail({ message: T.reload }))), []);
	return dialogs[name] ? html`<${dialogs[name]} ...${props} />` : null;
};
const dialog = (name) => later("./dialogs.js", name);
const Details = dialog("Details");
const PANELS = { people: dialog("People"), settings: dialog("Settings"), found: dialog("Found"), group: dialog("Group"), about: dialog("About"), verify: later("./verify.js", "Verify") };

function App() {
	const { open, panel } = S;
	if (S.link === "locked") return html`<${Locked} />`;
	if (!S.ready) return html`<${Wait} />`;
	const joins = !store.isMember() && !S.org.removed && !S.talks.size;
	return html`<div class="column"><${Banners} />${joins ? html`<${Join} />` : html`<div class="frame"><${Side} />
			<main class=${open === null && "behind"}>${open === null ? html`<${Nobody} />` : html`<${Conversation} of=${open} />`}</main></div>`}</div>
		${PANELS[panel] && html`<${PANELS[panel]} of=${open} />`}${panel?.m && html`<${Details} m=${panel.m} />`}`;
}

addEventListener("keydown", (e) => {
	if (S.panel) return;
	const search = document.getElementById("search"), step = e.altKey && { ArrowDown: 1, ArrowUp: -1 }[e.key];
	if (step) {
		const all = store.sorted(), next = all[all.findIndex((c) => c.key === S.open) + step];
		if (next) store.open(next.key);
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
