// A provider of sign-ins for the checks of scripts/lib/oidc.py: oidc-provider of npm with its own pages, over TLS on loopback.
// Arguments: the directory of the package, of key.pem and cert.pem, and the file with the client's secret. Prints its port.

import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [packages, tls, secretFile] = process.argv.slice(2);
const found = createRequire(pathToFileURL(`${packages}/`)).resolve("oidc-provider");
const { Provider } = await import(pathToFileURL(found));

// Whoever signs in is who he says; his groups follow from the name.
const people = {
  alice: { name: "Alice Example", department: "Finance", groups: ["staff"] },
  bob: { name: "Bob Beispiel", groups: ["staff"] },
  mallory: { name: "Mallory Guest", groups: ["guests"] },
};

const server = createServer({ key: readFileSync(`${tls}/key.pem`), cert: readFileSync(`${tls}/cert.pem`) });
server.listen(0, "127.0.0.1", () => {
  const issuer = `https://localhost:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: "shoal",
      client_secret: readFileSync(secretFile, "utf8").trim(),
      grant_types: ["urn:ietf:params:oauth:grant-type:device_code"],
      response_types: [],
      redirect_uris: [],
    }],
    claims: {
      openid: ["sub"],
      profile: ["name", "preferred_username", "department", "groups"],
      email: ["email", "email_verified"],
    },
    features: { deviceFlow: { enabled: true } },
    cookies: { keys: ["of these checks alone"] },
    findAccount: (_, id) => people[id] && {
      accountId: id,
      claims: () => ({
        sub: id, ...people[id], preferred_username: `${id}@example.org`, email: `${id}@example.org`, email_verified: true,
      }),
    },
  });
  server.on("request", provider.callback());
  console.log(`port ${server.address().port}`);
});
