// A conversation, and the dialogs over it.
import { Around, Avatar, day, dayOf, hour, html, Icon, long, Name, plain, Round, span, Strip, visible } from "./parts.js";
import * as store from "./store.js";
import { S } from "./store.js";
import { T } from "./texts.js";
import { useEffect, useLayoutEffect, useRef, useState } from "./vendor.js";

const TOGETHER = 180; // Seconds within which messages of one side stand together.

export const textOf = (m) => visible(m.text ?? (m.done ? doneOf(m.done) : T.unknown(plain(m.unknown))));
const names = (people = []) => people.map(plain).join(", ");
const doneOf = ({ act, people, called, role, expires_s }) =>
	T.done[act]?.(called === undefined ? names(people) : plain(called), expires_s === undefined ? role : span(expires_s)) ?? plain(act);
export const heldUntil = ({ devices = [] }) => devices.map((of) => of.held_until).filter((until) => until * 1000 > Date.now()).sort().at(-1);
const Why = ({ text = T.why }) => html`<button class="link" onClick=${() => store.panel("about")}>${text}</button>`;
export const close = () => store.panel(null);

function Head({ of, children }) {
	return html`<header class="bar head"><${Round} icon="back" kind="narrow" label=${T.back} onClick=${() => store.open(null)} /><${Avatar} of=${of} />${children}</header>`;
}

function Group({ group }) {
	const { people = [] } = S.groups.get(group) || {}, of = { name: store.nameOf(group), group, key: group };
	return html`<${Head} of=${of}><div class="who"><h1><${Name} of=${of.name} /></h1>
			<p class="under dim"><span class="unit">${T.peopleOf(people.length)} · </span><${Why} text=${T.noPresence} /></p></div>
			<button class="quiet" onClick=${() => store.panel("group")}><${Icon} of="people" /> <span>${T.people}</span></button><//>
		<${Messages} of=${of} key=${group} /><${Composer} of=${of} key=${`c${group}`} />`;
}

export const Conversation = ({ of }) => (store.isGroup(of) ? html`<${Group} group=${of} />` : html`<${Person} person=${of} />`);

function Person({ person }) {
	const contact = S.contacts.get(person) || {}, verified = S.verified.get(person), of = { name: store.nameOf(person), person, key: person };
	const held = heldUntil(contact);
	return html`<${Head} of=${of}>
			<div class="who"><h1><${Name} of=${of.name} tag=${store.tag(person)} /></h1>
				<p class="under dim">${contact.unit && html`<span class="unit"><bdi>${plain(contact.unit)}</bdi> · </span>`}<${Why} text=${T.noPresence} /></p></div>
			${!store.isGone(person) && html`<button class=${`quiet ${verified ? "good" : ""}`} onClick=${() => store.panel("verify")}><${Icon} of=${verified ? "shield" : "weak"} /> <span>${verified ? T.verified : T.verify}</span></button>`}<//>
		${held && html`<${Strip} kind="warn" icon="queued"><p>${T.held(long(held))}</p><//>`}
		<${Messages} of=${of} key=${person} /><${Composer} of=${of} key=${`c${person}`} />`;
}

function Messages({ of, of: { key } }) {
	const held = S.messages.get(key) || {}, { list = [], mark } = held, missed = S.missed.get(key);
	const ref = useRef(), atEnd = useRef(true), fromEnd = useRef(0), [far, setFar] = useState(false);
	const toEnd = () => (ref.current.scrollTop = ref.current.scrollHeight);
	const moved = () => {
		const el = ref.current;
		fromEnd.current = el.scrollHeight - el.scrollTop;
		atEnd.current = fromEnd.current - el.clientHeight < 60;
		setFar(!atEnd.current);
	};
	// What comes keeps the end in sight, if it was; what is put before leaves what is read where it is.
	useLayoutEffect(() => {
		const el = ref.current, marked = el.querySelector(".marked");
		if (marked) marked.scrollIntoView({ block: "center" });
		else if (atEnd.current) toEnd();
		else el.scrollTop = el.scrollHeight - fromEnd.current;
		moved();
	}, [list[0]?.number, mark]);
	useLayoutEffect(() => void (atEnd.current && toEnd()), [list.at(-1)?.number, missed]);
	const begins = (m, before) => before?.own !== m.own || before.person !== m.person || !before.text || m.sent_at - before.sent_at > TOGETHER;
	const lastOwn = list.findLast((m) => m.own && m.state);
	return html`<div class="scroll" ref=${ref} onScroll=${moved} tabindex="0" role="region" aria-label=${T.messages}>
		${held.hasMore ? html`<button class="quiet center" onClick=${() => store.earlier(key)}>${T.earlier}</button>`
			: held.list && html`<div class="empty"><${Avatar} of=${of} kind="large" /><p><${Around} parts=${(store.isGroup(key) ? T.beginningOf : T.beginning)(of.name)} /></p><p class="dim small">${T.byDesign}</p></div>`}
		<ol class="messages">${list.map((m, i) => html`
			${dayOf(m.sent_at) !== (i && dayOf(list[i - 1].sent_at)) && html`<li class="day" key=${`d${m.number}`}><h2>${day(m.sent_at)}</h2></li>`}
			<${Message} m=${m} key=${m.number} kind=${`${begins(m, list[i - 1]) && "begins"} ${mark === m.number ? "marked" : ""}`} />
			${m === lastOwn && m.state !== "delivered" && html`<li class="reason own" key="late">${T.late} <${Why} /></li>`}`)}</ol>
		${missed && html`<${Strip} kind="warn" icon="expired">${T.missed(missed)}<//>`}
		${(far || held.isLatest === false) && html`<${Round} icon="down" kind="float" label=${T.latest} onClick=${() => (held.isLatest ? toEnd() : store.latest(key))} />`}</div>`;
}

export const stateOf = (m) => (m.of && m.state !== "delivered" && m.reached ? T.reached(m.reached, m.of) : T.states[m.state] || plain(m.state)) + (m.next_try && m.state === "waiting" ? ` · ${T.nextTry(long(m.next_try))}` : "");

function Message({ m, kind }) {
	const who = m.own ? T.you : plain(m.name);
	if (m.done) return html`<li class="notice dim small"><bdi>${who}</bdi> ${textOf(m)}</li>`;
	return html`<li class=${`message ${m.own ? "own" : ""} ${kind}`}><div class=${`bubble ${m.state}`}>
			${m.group && !m.own && kind.startsWith("begins") ? html`<${Name} of=${m.name} />` : html`<span class="unseen">${who}: </span>`}<div class="text" dir="auto">${textOf(m)}</div>
			<button class="meta" title=${T.details} onClick=${() => store.panel({ m })}>${m.edited && `${T.edited} · `}${m.expires_at && html`<${Icon} of="queued" label=${`${T.erased} ${long(m.expires_at)}`} />`}
				<time>${hour(m.sent_at)}</time>${m.own && html`${stateOf(m)} <${Icon} of=${m.state} />`}</button></div>
		${m.own && m.why && m.state !== "delivered" && html`<p class="reason">${m.why}</p>`}</li>`;
}

function Composer({ of: { name, key } }) {
	const [text, setText] = useState(S.drafts.get(key) || ""), field = useRef();
	const write = (value) => (setText(value), S.drafts.set(key, value));
	useEffect(() => void (innerWidth > 719 && field.current?.focus()), []);
	const send = () => {
		if (!text.trim()) return;
		write("");
		store.send(key, text).catch((error) => (write(text), store.fail(error)));
		field.current.focus();
	};
	const why = store.isGone(key) ? (store.isGroup(key) ? T.notIn : T.gone) : !store.isMember() && html`<${Around} parts=${T.out(S.org.organisation)} />`;
	if (why) return html`<${Strip}><p>${why}</p><//>`;
	const onKey = (e) => e.key === "Enter" && !e.shiftKey && !e.isComposing && (e.preventDefault(), send());
	return html`<form class="composer" onSubmit=${(e) => (e.preventDefault(), send())}>
		<textarea ref=${field} rows=${Math.min(text.split("\n").length, 7)} maxlength="15000" dir="auto" value=${text} placeholder=${T.write} aria-label=${`${T.writeTo(plain(name))}. ${T.enter}`} onInput=${(e) => write(e.target.value)} onKeyDown=${onKey}></textarea>
		<${Round} icon="send" kind="primary" label=${T.send} disabled=${!text.trim()} /></form>`;
}

// A dialog over the page, which keeps the focus, and gives it back.
export function Dialog({ title, kind, children }) {
	const ref = useRef();
	useLayoutEffect(() => {
		const before = document.activeElement;
		ref.current.showModal();
		return () => before?.isConnected && before.focus();
	}, []);
	return html`<dialog ref=${ref} class=${kind} aria-labelledby="title" onCancel=${(e) => (e.preventDefault(), close())} onClick=${(e) => e.target === ref.current && close()}>
		<div class="sheet"><header class="bar"><h2 id="title">${title}</h2><${Round} icon="close" label=${T.close} onClick=${close} /></header><div class="body">${children}</div></div></dialog>`;
}
