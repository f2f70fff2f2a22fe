//! The file that `init` writes.

use std::fmt::Write as _;
use std::path::Path;

use shoal_topology::Identity;

use super::{AdmissionName, Config, OrganisationConfig, TokenConfig};

impl Config {
    // Long: the text of the template, in which each field stands once, beside its comment.
    /// The file, with a comment for every field.
    pub fn to_toml(&self) -> String {
        let string = |text: &str| toml::Value::String(text.into()).to_string();
        let path = |path: &Path| string(&path.display().to_string());
        let addresses: Vec<String> =
            self.advertise.iter().map(|address| string(&address.to_string())).collect();
        let admin = self.admin.map(|address| address.to_string()).unwrap_or_default();
        let names = |identities: &[Identity]| {
            let names: Vec<String> =
                identities.iter().map(|identity| format!("\n    \"{identity}\",")).collect();
            if names.is_empty() { String::new() } else { names.concat() + "\n" }
        };
        let gateway = &self.gateway;
        let admission = match gateway.admission {
            AdmissionName::Open => "open",
            AdmissionName::Tokens => "tokens",
        };
        let mut text = format!(
            r#"# Configuration of shoal-node. Every line may be left out; its default is what `shoal-node init` writes.
# Relative paths start at the directory of this file. `-o key=value` on the command line goes before it.

# What this node does: "mix", "gateway" or "authority".
role = {role}

# Where it listens for links: an address and a port. 0.0.0.0 and [::] stand for all addresses of this machine; of a name,
# the first address counts that it has at the start.
listen = {listen}

# Where other nodes and clients reach it, 1 to 4 addresses with ports. Empty: at `listen`. Names stand for the addresses
# that they have at the start; when these change, SIGHUP.
advertise = [{advertise}]

# Who runs the node, and whose law it is under: all mixes of one operator stand in one layer, and who runs a gateway runs no mix. 1 to 64 bytes.
operator = {operator}
jurisdiction = {jurisdiction}

# Long-lived files: the identity (identity.key), the descriptor to give to the authorities, the inbox.
data_dir = {data_dir}

# Files that must not outlive the machine's next start: mix keys with what they have opened, control socket. It should
# lie in memory.
# Empty: $RUNTIME_DIRECTORY (systemd), else a directory of its own under $XDG_RUNTIME_DIR or /dev/shm, else `run` in data_dir.
runtime_dir = {runtime_dir}

# The signed topology document. It is read anew whenever it changes.
topology = {topology}

# The network file: the name of the network and the identities of its authorities.
network = {network}

# The admin page: /livez, /readyz, /metrics, on this machine only. "" switches it off.
admin = {admin}

# Threads that open packets, up to 1024. 0: one for each core.
workers = {workers}

# The rate that this node is made for, packets a second. A key must remember what comes at this rate in its life (an
# epoch, and as long as packets are under way): 16 bytes a packet in memory, at most replay_mib MiB for all keys, and 8
# in the runtime directory. What exceeds it is refused. The node's descriptor says it, and a mix below the network's least
# rate (100 unless its authorities say otherwise) is not listed.
max_packets_per_s = {max_packets_per_s}
replay_mib = {replay_mib}

# Packets that wait for their time at once, about 2.5 kB each. When it is full, the newest is dropped.
pool_packets = {pool_packets}

# What is logged: "off", "error", "warn", "info", "debug" or "trace". SHOAL_LOG goes before it.
log = {log}

# For gateways alone.
[gateway]

# Whom it lets in: "open" (everyone as a person; as a service whoever shows a token of the list below) or "tokens"
# (whoever shows one).
admission = {admission}

# Clients at a time, and of these clients without a token from one network (a /24 of IPv4, a /48 of IPv6; many people
# may share an address). One more is refused.
max_clients = {max_clients}
max_clients_of_one_network = {max_clients_of_one_network}

# On an open gateway, the part of max_clients that is kept for bearers of tokens, so that they get in when everyone else has
# filled it: 0.0 to 0.9, and no more than their tokens have connections.
token_share = {token_share:?}

# Packets a second, each way, of a service (an exit, an application). More wait, and then are dropped.
service_per_s = {service_per_s:?}

# Questions for descriptors of its clients that it answers a second, in all. More are dropped.
queries_per_s = {queries_per_s:?}

# Whether packets for clients that are away are kept (encrypted, in data_dir/inbox.redb), how many inboxes it
# knows, and how many packets they hold together. Beyond that, whoever has most gives way: the bearers of a token, or
# the clients of a network. Quota and expiry of one inbox are in the topology document.
inbox = {inbox}
# Whether they, and the descriptors of clients, survive a reboot of this machine: then the key of that file lies in
# data_dir, and whoever takes the disk finds which clients there are, and how many packets wait for each, since which five hours of
# the week. If not, the key lies in the runtime directory, and people who were away lose at a reboot what waited for them.
inbox_survives_reboot = {inbox_survives_reboot}
max_inboxes = {max_inboxes}
inbox_packets = {inbox_packets}

# A token: what the client shows, its connections at a time, and whether its bearer may be a service.
# [[gateway.token]]
# secret = "…"
# connections = 1
# service = false

# For authorities alone.
[authority]

# The identities of the nodes that may be listed (`shoal-node identity` prints a node's own), and of the services that may
# be listed as exits (`shoal-client identity`). Whoever asks and is on no list: `shoal-node authority pending`.
nodes = [{nodes}]
exits = [{exits}]

# A TOML file with the parameters of the network, the same at all authorities. "": the defaults, which `shoal-node
# parameters` prints.
parameters = {parameters}

# Parameters that take their place in the document of an epoch, and from then on. So all authorities can be told beforehand,
# one after the other, and change at once. "": none. `shoal-node status` says which epoch it is.
next_parameters = {next_parameters}
next_from_epoch = {next_from_epoch}

# Organisations whose directories may have a head in the document, by the keys that `shoal-org` prints for authorities. A name
# is one of at most 32 bytes, and the same at all authorities.
# [[authority.organisation]]
# name = "acme"
# key = "…"
"#,
            role = string(self.role.name()),
            listen = string(&self.listen.to_string()),
            advertise = addresses.join(", "),
            operator = string(&self.operator),
            jurisdiction = string(&self.jurisdiction),
            data_dir = path(&self.data_dir),
            runtime_dir = path(&self.runtime_dir),
            topology = path(&self.topology),
            network = path(&self.network),
            admin = string(&admin),
            workers = self.workers,
            max_packets_per_s = self.max_packets_per_s,
            replay_mib = self.replay_mib,
            pool_packets = self.pool_packets,
            log = string(&self.log),
            admission = string(admission),
            max_clients = gateway.max_clients,
            max_clients_of_one_network = gateway.max_clients_of_one_network,
            token_share = gateway.token_share,
            service_per_s = gateway.service_per_s,
            queries_per_s = gateway.queries_per_s,
            inbox = gateway.inbox,
            inbox_survives_reboot = gateway.inbox_survives_reboot,
            max_inboxes = gateway.max_inboxes,
            inbox_packets = gateway.inbox_packets,
            nodes = names(&self.authority.nodes),
            exits = names(&self.authority.exits),
            parameters = path(&self.authority.parameters),
            next_parameters = path(&self.authority.next_parameters),
            next_from_epoch = self.authority.next_from_epoch,
        );
        for token in &gateway.token {
            let TokenConfig { secret, connections, service } = token;
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n[[gateway.token]]\nsecret = {}\nconnections = {connections}\nservice = {service}\n",
                string(secret)
            );
        }
        for OrganisationConfig { name, key } in &self.authority.organisation {
            let name = string(name);
            let _ = write!(text, "\n[[authority.organisation]]\nname = {name}\nkey = \"{key}\"\n");
        }
        text
    }
}
