// Dialogs that are loaded when one is wanted.
import { close, Dialog, stateOf, textOf } from "./chat.js";
import { Contact, found, Protection, Search } from "./panels.js";
import { html, Icon, long, Name, notifies, span, Strip, visible } from "./parts.js";
import * as store from "./store.js";
import { S } from "./store.js";
import { L } from "./texts-later.js";
import { T } from "./texts.js";
import { useEffect, useRef, useState } from "./vendor.js";

const PEOPLE = 100; // In a list at a time: a directory may have ten thousand.

export function People() {
	const [text, setText] = useState(""), all = found(text);
	return html`<${Dialog} title=${T.newMessage} kind="tall"><p class="acts"><button class="quiet" onClick=${() => store.panel("found")}><${Icon} of="people" /> ${T.newGroup}</button></p><${Search} autofocus label=${T.people} value=${text} onInput=${(e) => setText(e.target.value)}
			onKeyDown=${(e) => e.key === "Enter" && all[0] && store.open(all[0].person)} />
		<ul class="list">${all.slice(0, PEOPLE).map((c) => html`<${Contact} c=${c} key=${c.person} />`)}</ul>
		${!all.length && html`<p class="empty dim">${T.nothing}</p>`}<//>`;
}

export function Settings() {
	const { organisation, key, entries = 0, head = 0, announcements } = S.org, [state, setState] = useState(notifies());
	const turn = async () => {
		localStorage.notify = state === "on" ? "" : "1";
		if (state === "off") await Notification.requestPermission();
		setState(notifies());
	};
	return html`<${Dialog} title=${T.settings}><h3>${L.network}</h3><${Protection} />
		${S.status?.warnings?.length ? html`<ul class="dots">${S.status.warnings.map((text) => html`<li>${text}</li>`)}</ul>` : ""}
		${organisation && html`<h3>${L.organisation}: <${Name} of=${organisation} /></h3><p class="dim">${L.entries}: ${entries} / ${head}</p><p class="dim small">${L.key}: ${key}</p>`}
		${announcements?.length > 0 && html`<h3>${T.announcements}</h3>${[...announcements].reverse().map((text) => html`<${Strip} kind="note"><bdi>${visible(text)}</bdi><//>`)}`}
		<h3>${L.notifications}</h3><p class="dim">${L.notifyHint}</p><p>${state === "denied" ? L.notify.denied : html`<button class="quiet" onClick=${turn}>${L.notify[state]}</button>`}</p><//>`;
}

export const About = () => html`<${Dialog} title=${L.about}><p>${T.byDesign}</p>
	<dl>${Object.keys(T.states).map((state) => html`<dt><${Icon} of=${state} /> ${T.states[state]}</dt><dd>${L.hints[state]}</dd>`)}</dl><//>`;

export function Details({ m }) {
	const now = S.messages.get(store.keyOf(m))?.list.find((other) => other.number === m.number) || m;
	const [text, setText] = useState(null), [error, setError] = useState(""), field = useRef();
	const act = (asked) => asked.then(close, ({ message }) => setError(`${T.failed}: ${message}`));
	useEffect(() => field.current?.focus(), [text === null]);
	const times = [[L.written, now.sent_at], [L.came, now.came_at], [T.erased, now.expires_at]].filter(([, s]) => s);
	return html`<${Dialog} title=${T.details}><blockquote dir="auto">${textOf(now).slice(0, 300)}</blockquote>
		<dl>${times.map(([what, s]) => html`<dt>${what}</dt><dd>${long(s)}</dd>`)}${now.own && html`<dt>${T.state}</dt><dd><${Icon} of=${now.state} /> ${stateOf(now)}<p class="dim">${now.why || L.hints[now.state]}</p></dd>`}</dl>
		${now.own && html`<p class="dim">${T.byDesign}</p>`}
		${text !== null && html`<textarea ref=${field} rows="4" maxlength="15000" dir="auto" value=${text} aria-label=${L.edit} onInput=${(e) => setText(e.target.value)}></textarea>`}
		${error && html`<${Strip} kind="bad" role="alert">${error}<//>`}
		<p class="acts">${now.own && now.text && (text === null ? html`<button class="quiet" onClick=${() => setText(now.text)}>${L.edit}</button>`
			: html`<button class="primary" disabled=${!text.trim()} onClick=${() => act(store.edit(now, text))}>${L.save}</button>`)}
			${now.own && html`<button class="quiet bad" onClick=${() => act(store.remove(now, true))}>${now.group ? L.removeForAll : L.removeAll}</button>`}<button class="quiet bad" onClick=${() => act(store.remove(now))}>${L.remove}</button></p>
		<p class="dim small">${now.own ? L.changeHint : L.removeHint}</p><//>`;
}

// People to choose from, each once.
function Choice({ chosen, setChosen, but = [] }) {
	const [text, setText] = useState(""), all = found(text).filter((c) => !but.includes(c.person));
	const turn = (person) => setChosen(chosen.includes(person) ? chosen.filter((other) => other !== person) : [...chosen, person]);
	return html`<${Search} label=${T.people} value=${text} onInput=${(e) => setText(e.target.value)} />
		<ul class="list choice">${all.slice(0, PEOPLE).map((c) => html`<li key=${c.person}><label class="row"><input type="checkbox" checked=${chosen.includes(c.person)} onChange=${() => turn(c.person)} /> <${Name} of=${c.name} tag=${store.tag(c.person)} /></label></li>`)}</ul>
		${!all.length && html`<p class="empty dim">${T.nothing}</p>`}`;
}

export function Found() {
	const [name, setName] = useState(""), [chosen, setChosen] = useState([]), [error, setError] = useState("");
	const found = (e) => (e.preventDefault(), store.found(name, chosen).catch(({ message }) => setError(message)));
	return html`<${Dialog} title=${T.newGroup} kind="tall"><form onSubmit=${found}>${error && html`<${Strip} kind="bad" role="alert">${error}<//>`}
		<label>${L.groupName}<input autofocus required maxlength="100" value=${name} onInput=${(e) => setName(e.target.value)} /></label>
		<${Choice} chosen=${chosen} setChosen=${setChosen} /><p class="dim small">${L.hidden}</p>
		<button class="primary" disabled=${!name.trim() || !chosen.length}>${L.found}</button></form><//>`;
}

export function Group({ of: group }) {
	const { name, people = [], admin, member, expires_s, devices, most_devices } = S.groups.get(group) || {};
	const [adds, setAdds] = useState(null), [asks, setAsks] = useState(null), [title, setTitle] = useState(null), [error, setError] = useState("");
	const me = people.find((one) => one.own), rank = (one) => ["owner", "admin", "member"].indexOf(one.role);
	// Whoever has more to say, or joined earlier with as much, is above.
	const isBelow = (one) => admin && me && (rank(one) > rank(me) || (rank(one) === rank(me) && people.indexOf(one) > people.indexOf(me)) || me.role === "member");
	const act = (deed) => store.act(group, deed).then(() => (setAsks(null), setAdds(null), setTitle(null), setError("")), ({ message }) => setError(message));
	const sure = (what, label, deed) => html`<button class=${`quiet bad ${asks === what ? "asks" : ""}`} onClick=${() => (asks === what ? act(deed) : setAsks(what))}>${asks === what ? L.sure : label}</button>`;
	return html`<${Dialog} title=${html`<${Name} of=${name} />`} kind="tall">${error && html`<${Strip} kind="bad" role="alert">${error}<//>`}
		<h3>${L.members}</h3><ul class="members">${people.map((one) => html`<li key=${one.person}><${Name} of=${one.name} tag=${store.tag(one.person)} /> <span class="dim">${one.own ? `${T.you}, ` : ""}${L.role[one.role]}</span>
			${!one.own && isBelow(one) && html`<span class="acts"><button class="quiet" onClick=${() => act({ person: one.person, role: one.role === "member" ? "admin" : "member" })}>${one.role === "member" ? L.makeAdmin : L.makeMember}</button>${sure(one.person, L.takeOut, { remove: [one.person] })}</span>`}</li>`)}</ul>
		${admin && (adds ? html`<${Choice} chosen=${adds} setChosen=${setAdds} but=${people.map((one) => one.person)} /><p class="dim small">${L.history}</p><p><button class="primary" disabled=${!adds.length} onClick=${() => act({ add: adds })}>${L.addPeople}</button></p>`
			: html`<p><button class="quiet" onClick=${() => setAdds([])}>${L.addPeople}</button></p>`)}
		${admin && html`<form onSubmit=${(e) => (e.preventDefault(), act({ rename: title }))}><label>${L.groupName}<input maxlength="100" value=${title ?? name} onInput=${(e) => setTitle(e.target.value)} /></label>
			${title !== null && title.trim() !== name && html`<button class="primary">${L.rename}</button>`}</form>`}
		<label>${L.lifetime}<select disabled=${!admin} value=${expires_s} onChange=${(e) => act({ expires_s: +e.target.value })}>
			${Object.entries({ ...L.lifetimes, [expires_s]: L.lifetimes[expires_s] || span(expires_s) }).map(([s, label]) => html`<option value=${s} selected=${+s === expires_s}>${label}</option>`)}</select></label>
		<p class="dim small">${member && L.reach(devices, most_devices)} ${L.hidden}</p>
		${member && html`<h3>${L.leave}</h3><p class="dim">${L.leaveHint}</p><p>${sure("leave", L.leave, { leave: true })}</p>`}<//>`;
}
