// Lines of JSON to and from the client. The page gets in by a code, which it exchanges for a token that this tab keeps.
import { T } from "./texts.js";

const PATIENCE = 30000; // Milliseconds for an answer.
let socket, code, retry, on, asked = 0, failures = 0;
const waiting = new Map();

export function start(listeners) {
	on = listeners;
	// Out of the address, so that no bookmark and no screenshot has it.
	code = location.hash.slice(1);
	history.replaceState(null, "", "/");
	if (code || sessionStorage.token) connect();
	else on.state("locked", "");
}

export function enter(text) {
	code = text.trim();
	if (code) connect();
}

function connect() {
	clearTimeout(retry);
	if (socket) {
		socket.onclose = null;
		socket.close();
	}
	const byCode = !!code, decoder = new TextDecoder();
	let rest = "", greeted = false;
	socket = new WebSocket(`ws://${location.host}/words`);
	socket.binaryType = "arraybuffer";
	socket.onopen = () => {
		socket.send(JSON.stringify(code ? { code } : { token: sessionStorage.token }));
		code = "";
	};
	socket.onmessage = ({ data }) => {
		if (typeof data === "string") {
			const { token } = JSON.parse(data);
			if (token) sessionStorage.token = token;
			return;
		}
		const lines = (rest + decoder.decode(data, { stream: true })).split("\n");
		rest = lines.pop();
		for (const said of lines.map((line) => JSON.parse(line))) {
			if (greeted) take(said);
			else on.open(said.protocol);
			greeted = true;
		}
	};
	socket.onclose = ({ code }) => {
		socket = null;
		for (const { no } of waiting.values()) no(new Error(T.noClient));
		waiting.clear();
		if (code === 4401) {
			delete sessionStorage.token;
			return on.state("locked", byCode ? T.badCode : T.ended);
		}
		if (code === 4429) return on.state("locked", T.full);
		if (greeted) failures = 0;
		on.state("gone", T.noClient);
		retry = setTimeout(connect, Math.min(500 * 2 ** failures++, 10000));
	};
}

function take(said) {
	if (said.event) return on.event(said);
	const request = waiting.get(said.id);
	if (!request) return;
	waiting.delete(said.id);
	if (said.error) request.no(new Error(said.error));
	else request.yes(said);
}

// Asks the client: its answer, or an error with the reason.
export const ask = (word, fields) =>
	new Promise((yes, no) => {
		const id = ++asked;
		if (socket?.readyState !== 1) return no(new Error(T.noClient));
		waiting.set(id, { yes, no });
		setTimeout(() => waiting.delete(id) && no(new Error(T.noClient)), PATIENCE);
		socket.send(JSON.stringify({ ...fields, word, id }));
	});

export const listen = () => socket.send(JSON.stringify({ word: "events", id: "events", new: true }));
