// All around the conversation.
import { heldUntil, textOf } from "./chat.js";
import { Around, Avatar, html, Icon, long, Name, plain, Round, Row, Strip, visible } from "./parts.js";
import * as store from "./store.js";
import { S } from "./store.js";
import { T } from "./texts.js";
import { useState } from "./vendor.js";

const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
export function found(text) {
	const words = fold(text).split(/\s+/);
	const all = [...S.contacts.values()].filter((c) => words.every((word) => fold(`${c.name} ${c.unit || ""}`).includes(word)));
	return all.filter((c) => !c.own).sort((a, b) => fold(a.name).localeCompare(fold(b.name)));
}
export const Search = ({ label, ...rest }) => html`<div class="search"><${Icon} of="search" /><input type="search" aria-label=${label} placeholder=${label} maxlength="1000" autocomplete="off" ...${rest} /></div>`;

export function Side() {
	const me = store.me(), all = store.sorted();
	return html`<nav class=${`side ${S.open === null ? "" : "behind"}`} aria-label=${T.conversations}>
		<header class="bar">${me && html`<${Avatar} of=${me} />`}<h1><${Name} of=${S.org.organisation || T.shoal} /></h1>
			<${Round} icon="gear" label=${T.settings} onClick=${() => store.panel("settings")} />
			${store.isMember() && html`<${Round} icon="pen" label=${T.newMessage} onClick=${() => store.panel("people")} />`}</header>
		<${Search} id="search" label=${T.search} value=${S.search} onInput=${(e) => store.search(e.target.value)} />
		${S.search.trim() ? html`<${Found} />` : html`<ul class="list">${all.map((c) => html`<${Talk} c=${c} key=${c.key} />`)}
			${!all.length && html`<li class="empty"><strong>${T.none}</strong><p class="dim">${T.noneHint}</p><button class="primary" onClick=${() => store.panel("people")}>${T.newMessage}</button></li>`}</ul>`}
		<button class="protection" onClick=${() => store.panel("settings")}><${Protection} /></button></nav>`;
}

function Talk({ c, c: { last } }) {
	return html`<${Row} of=${c} tag=${store.tag(c.key)} time=${last?.sent_at} now=${S.open === c.key} onClick=${() => store.open(c.key)}>
		<span class="line"><span class="snippet">${last?.own ? `${T.you}: ` : c.group && last && `${plain(last.name)}: `}<bdi>${last && textOf(last).slice(0, 120)}</bdi></span>
			${last?.state && html`<span class=${last.state}><${Icon} of=${last.state} label=${T.states[last.state]} /></span>`}
			${c.unread > 0 && html`<span class="count" role="img" aria-label=${T.unread(c.unread)}>${c.unread}</span>`}</span><//>`;
}

export function Contact({ c }) {
	const held = heldUntil(c);
	return html`<${Row} of=${c} tag=${store.tag(c.person)} onClick=${() => store.open(c.person)}>${c.unit && html`<span class="snippet"><bdi>${plain(c.unit)}</bdi></span>`}
		${held && html`<span class="small warn">${T.held(long(held))}</span>`}<//>`;
}

function Found() {
	const people = found(S.search).slice(0, 8), word = S.search.trim().toLowerCase(), { messages, error } = S.found || {};
	// From a little before the word on.
	const part = (text) => text.slice(Math.max(text.toLowerCase().indexOf(word) - 20, 0)).slice(0, 120);
	return html`<div class="list">${people.length > 0 && html`<h2>${T.people}</h2><ul>${people.map((c) => html`<${Contact} c=${c} />`)}</ul>`}
		<h2 role="status">${error || (!messages ? T.searching : messages.length ? T.messages : T.nothing)}</h2>
		<ul>${messages?.map((m) => html`<${Row} of=${{ ...m, name: m.group_name ?? m.name }} tag=${store.tag(m.person)} time=${m.sent_at} onClick=${() => store.openAt(m)}><span class="snippet">${m.own ? `${T.you}: ` : m.group && `${plain(m.name)}: `}<bdi>${part(textOf(m))}</bdi></span><//>`)}</ul></div>`;
}

export function Protection() {
	const { connected, summary, why, warnings } = S.status || {}, isOff = S.link !== "open" || !connected;
	const [icon, kind] = isOff ? ["off", "bad"] : warnings?.length ? ["weak", "warn"] : ["shield", "good"];
	return html`<${Strip} kind=${kind} icon=${icon}><p>${S.note || summary || why || T.connecting}</p><//>`;
}

// What must not be overlooked.
export function Banners() {
	const { alarms = [], announcements = [], removed, organisation } = S.org, text = announcements.at(-1), { toast, note } = S;
	return html`${alarms.length > 0 && html`<${Strip} kind="bad banner" icon="alarm" role="alert"><div><strong>${T.alarms(alarms.length)}</strong>
			<ul class="dots">${alarms.map((text) => html`<li><bdi>${visible(text)}</bdi></li>`)}</ul>${T.alarmHint}</div><button class="quiet" onClick=${store.seen}>${T.seen}</button><//>`}
		${removed && html`<${Strip} kind="bad banner" icon="off" role="alert"><p><${Around} parts=${T.out(organisation)} /></p><//>`}
		${text && !S.dismissed.has(text) && html`<${Strip} kind="note banner"><div class="clamp"><strong>${T.announcement}:</strong> <bdi>${visible(text)}</bdi></div>
			<${Round} icon="close" label=${T.close} onClick=${() => (S.dismissed.add(text), store.changed())} /><//>`}
		${S.link === "gone" && html`<${Strip} kind="warn banner" icon="off" role="status">${note}<//>`}
		${toast && html`<${Strip} kind="bad toast" role="alert"><p>${toast}</p><${Round} icon="close" label=${T.close} onClick=${() => store.set({ toast: null })} /><//>`}`;
}

const Card = ({ title, children }) => html`<main class="middle"><section class="card"><img src="/icon.svg" alt="" /><h1>${title}</h1>${children}</section></main>`;

export function Join() {
	const { organisation, refused, digits, sign_in } = S.org, [again, setAgain] = useState(false), [error, setError] = useState("");
	const ask = (form, signsIn) => {
		const of = (key) => form.elements[key].value.trim();
		const fields = { code: signsIn ? "sign-in" : of("code"), organisation: of("name"), device: of("device") || T.computer };
		store.join(fields).then(() => (setAgain(false), setError("")), (error) => setError(error.message));
	};
	const why = error || refused, trouble = why && html`<${Strip} kind="bad" role="alert">${why}<//>`;
	if (!organisation || again)
		return html`<${Card} title=${T.join}><p class="dim">${T.joinHint}</p>${trouble}<form onSubmit=${(e) => (e.preventDefault(), ask(e.target))}>
			<label>${T.code}<input name="code" maxlength="2000" autocomplete="off" required /></label>
			<label>${T.device}<input name="device" value=${T.computer} maxlength="64" /></label><label>${T.name}<input name="name" /></label>
			<button class="primary">${T.ask}</button><button type="button" class="link center" onClick=${(e) => ask(e.target.form, true)}>${T.signIn}</button></form><//>`;
	return html`<${Card} title=${html`<${Around} parts=${T.asked(organisation)} />`}>${trouble}
		${sign_in && html`<p>${T.signInAt}</p><p><bdi>${sign_in.address}</bdi></p><p class="digits one"><bdi>${sign_in.code}</bdi></p>
			${/^https:\/\/\S+$/.test(sign_in.address) && html`<a class="primary" href=${sign_in.address} target="_blank" rel="noopener noreferrer">${T.signInOpen}</a>`}
			<${Strip} kind="warn" icon="alarm">${T.signInWarning}<//>`}
		${digits && html`<p>${T.admin}</p><p class="digits one" aria-label=${[...digits].join(" ")}>${digits}</p>`}<button class="link center" onClick=${() => setAgain(true)}>${T.again}</button><//>`;
}

export const Locked = () => html`<${Card} title=${T.locked}>${S.note && html`<${Strip} kind="warn" role="alert">${S.note}<//>`}
	<p>${T.lockedHint}</p><pre>shoal-client open</pre><p>${T.orCode}</p><pre>shoal-client open --code</pre>
	<form onSubmit=${(e) => (e.preventDefault(), store.enter(e.target.elements.code.value))}><label>${T.oneTime}<input name="code" required /></label><button class="primary">${T.open}</button></form><//>`;

export const Wait = () => html`<${Card} title=${T.shoal}><p class="center" role="status">${S.note || T.connecting}</p><//>`;
export const Nobody = () => html`<div class="empty middle"><img src="/icon.svg" alt="" /><h1>${T.choose}</h1><p class="dim">${T.byDesign}</p></div>`;
