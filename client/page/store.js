// What the page knows and does. Whoever changes it calls `changed`, and the page is drawn anew.
import { ask, enter, listen, start } from "./net.js";
import { notify, say } from "./parts.js";
import { T } from "./texts.js";

const PROTOCOL = 3, PAGE = 40;

export const S = {
	link: "connecting", note: "", ready: false, status: null, org: {}, toast: null,
	contacts: new Map(), known: new Map(), talks: new Map(), groups: new Map(), verified: new Map(), messages: new Map(), drafts: new Map(), missed: new Map(), dismissed: new Set(),
	open: null, panel: null, search: "", found: null,
};

let draw, scheduled;
let early; // Events before all else is known.
export function changed() {
	if (!scheduled) queueMicrotask(() => ((scheduled = false), draw()));
	scheduled = true;
}
export const set = (fields) => (Object.assign(S, fields), changed());
export const panel = (panel) => set({ panel });

export const me = () => [...S.contacts.values()].find((contact) => contact.own);
export const isMember = () => !!S.org.member;
// A conversation has the number of a person, or the identifier of a group.
export const keyOf = ({ group, person }) => group ?? person;
const named = (key) => (isGroup(key) ? { group: key } : { person: key });
export const isGroup = (key) => typeof key === "string";
// Whom the organisation has removed, and groups to which one belongs no more.
export const isGone = (key) => (isGroup(key) ? S.groups.get(key)?.member === false : isMember() && !S.contacts.has(key));
export const tag = (key) => !isGroup(key) && (isGone(key) ? T.former : S.contacts.get(key)?.external && T.external);
export const nameOf = (key) => (S.groups.get(key) || S.known.get(key) || S.talks.get(key))?.name || "";
export const unread = () => [...S.talks.values()].reduce((sum, c) => sum + c.unread, 0);
export const sorted = () => [...S.talks.values()].sort((a, b) => (b.last?.number || 0) - (a.last?.number || 0));

export const fail = ({ message }) => set({ toast: `${T.failed}: ${message}` });

export function begin(drawing) {
	draw = drawing;
	start({
		event,
		state: (link, note) => set({ link, note }),
		open(protocol) {
			if (protocol !== PROTOCOL) return set({ link: "locked", note: T.otherVersion });
			set({ link: "open" });
			load().catch(fail);
		},
	});
	setInterval(() => S.link === "open" && status(), 15000);
}

async function load() {
	early = [];
	listen();
	await Promise.all([organisation(), people(), groups(), conversations(), status()]);
	const events = early;
	early = null;
	events.forEach(event);
	S.messages.clear();
	set({ ready: true });
	if (S.open !== null) latest(S.open);
}
const organisation = async (fields) => set({ org: await ask("organisation", fields) });
const status = () => ask("status").then((status) => set({ status }), () => {});
const byKey = (list) => new Map(list.map((of) => [keyOf(of), { ...of, key: keyOf(of) }]));
const groups = async () => set({ groups: byKey((await ask("groups")).groups) });
async function people() {
	const contacts = byKey((await ask("contacts")).contacts);
	// Who goes keeps his name.
	set({ contacts, known: new Map([...S.known, ...contacts]) });
}
async function conversations() {
	const talks = byKey((await ask("conversations")).conversations);
	talks.forEach((c) => S.verified.set(c.key, c.verified));
	set({ talks });
}

// Asks once for what several events changed.
const later = new Map();
function soon(what) {
	clearTimeout(later.get(what));
	later.set(what, setTimeout(() => what().catch(fail), 200));
}

function event(e) {
	const { person, number } = e, key = keyOf(e);
	if (early) return early.push(e);
	if (["received", "sent", "done"].includes(e.event)) return arrived(e);
	if (e.event === "group") return soon(groups);
	if (e.event === "reached") return change(key, number, (m) => ({ ...m, reached: e.reached, of: e.of }));
	if (e.event === "state") return change(key, number, (m) => ({ ...m, state: e.state, why: e.why, next_try: e.next_try }));
	if (e.event === "changed") return again(key, number).catch(fail);
	if (e.event === "missed") return S.missed.set(person, (S.missed.get(person) || 0) + e.parts), changed();
	if (e.event === "connected") return status();
	if (e.event === "alarm" || e.event === "announcement") {
		say(`${T[e.event]}: ${e.text}`);
		notify(T[e.event]);
	}
	soon(organisation);
	soon(people);
}

function arrived(m) {
	const { number, name } = m, key = keyOf(m);
	const c = S.talks.get(key) || { ...named(key), key, name: m.group_name ?? name, unread: 0 };
	// What was known already comes again where no program took it.
	const isNew = number > (c.last?.number || 0), isUnread = isNew && !m.own && !m.read;
	if (isNew) c.last = m;
	if (isUnread) c.unread += 1;
	S.talks.set(key, c);
	const held = S.messages.get(key);
	if (isNew && held?.isLatest) held.list = [...held.list, m];
	changed();
	if (!isUnread) return;
	if (S.open === key && isLooking()) {
		say(`${name}: ${m.text}`);
		read(key);
	} else {
		say(`${T.newMessage}: ${name}`);
		notify(T.newMessage);
	}
}

function change(key, number, how) {
	const held = S.messages.get(key), c = S.talks.get(key);
	if (held) held.list = held.list.map((m) => (m.number === number ? how(m) : m)).filter(Boolean);
	if (c?.last?.number === number) c.last = how(c.last);
	changed();
}
async function again(key, number) {
	const { messages } = await ask("messages", { number });
	change(key, number, () => messages[0]);
	soon(conversations);
}

const isLooking = () => document.visibilityState === "visible" && document.hasFocus();

// What came in a conversation counts as read when it is on the screen.
export function read(key) {
	const c = S.talks.get(key), held = S.messages.get(key), last = held && Math.max(...held.list.map((m) => (m.own ? 0 : m.number)));
	if (S.open !== key || !c?.unread || !held?.isLatest || !last || !isLooking()) return;
	c.unread = 0;
	changed();
	ask("read", { ...named(key), up_to: last }).catch(fail);
}

async function fetch(key, fields, join) {
	try {
		const { messages } = await ask("messages", { ...named(key), last: PAGE, ...fields });
		const held = S.messages.get(key) || { list: [] };
		S.messages.set(key, { ...held, hasMore: messages.length >= PAGE, ...join(messages, held) });
		changed();
		read(key);
	} catch (error) {
		fail(error);
	}
}
export const latest = (key) => fetch(key, {}, (list) => ({ list, isLatest: true, mark: null }));
export const earlier = (key) => fetch(key, { before: S.messages.get(key).list[0].number }, (list, held) => ({ list: [...list, ...held.list] }));

const show = (key) => set({ open: key, panel: null, search: "", found: null });
export function open(key) {
	show(key);
	if (key === null) return;
	// Conversations say it of those with whom there are messages.
	if (!isGroup(key) && !S.verified.has(key)) verify(key).catch(() => {});
	if (S.messages.get(key)?.isLatest) read(key);
	else latest(key);
}
// Opens a conversation where a message is, with some that came after it.
export function openAt(m) {
	const { number } = m, key = keyOf(m);
	show(key);
	fetch(key, { before: number + 20 }, (list) => ({ list, mark: number, isLatest: list.at(-1)?.number >= S.talks.get(key)?.last?.number }));
}

let searching;
export function search(text) {
	set({ search: text, found: null });
	clearTimeout(searching);
	const wanted = text.trim(), find = () => ask("search", { text: wanted }).catch(({ message }) => ({ error: message }));
	if (wanted) searching = setTimeout(() => find().then((found) => S.search === text && set({ found })), 300);
}

export const send = (key, text) => ask("send", { ...named(key), text });
export const edit = ({ number }, text) => ask("edit", { number, text });
export async function remove(m, for_all) {
	const { number } = m;
	await ask("delete", { number, for_all });
	change(keyOf(m), number, () => null);
	soon(conversations);
}
export async function verify(person, same, digits) {
	const said = await ask("verify", { person, same, digits });
	S.verified.set(person, said.verified);
	changed();
	return said;
}
// Founds a group, or does something to one.
export async function found(name, people) {
	const { group } = await ask("found", { name, people });
	await groups();
	open(group);
}
export const act = (group, deed) => ask("group", { group, ...deed }).then(groups);
export const seen = () => organisation({ seen: true }).then(() => organisation()).catch(fail);
export const join = (fields) => ask("join", fields).then(() => organisation());
export { enter };
