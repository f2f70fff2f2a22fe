//! Verbs that found a network and look after its lists: `network`, `identity`, `parameters`, `authority`.

use std::path::PathBuf;

use clap::Subcommand;
use shoal_host::authorities::AuthorityAddress;
use shoal_node::daemon::{self, founding};
use shoal_topology::{Network, Parameters};

use crate::{Done, Given, because, failed, load, query, say, warn};

#[derive(Subcommand)]
pub(crate) enum NetworkVerb {
    /// Write the network file of a new network, which everyone gets
    #[command(
        after_help = "Example: shoal-node network new example --authority k5tp…=192.0.2.1:9001 --authority 7xqa…=192.0.2.2:9001 \
                      --authority 2mzb…=192.0.2.3:9001 --authority q4fd…=192.0.2.4:9001"
    )]
    New {
        /// What the network is called
        name: String,
        /// An authority: its identity, and where nodes reach it; four of them bear one that lies
        #[arg(long = "authority", value_name = "ID=ADDRESS", required = true, value_parser = authority_address)]
        authorities: Vec<AuthorityAddress>,
        /// How long an epoch is: seconds, or a number with s, m or h
        #[arg(long, default_value = "20m", value_parser = epoch)]
        epoch: u32,
        /// Found it for trial: clients serve people who are too few to hide each other, and say so
        #[arg(long)]
        trial: bool,
        /// Where to write it
        #[arg(long, value_name = "FILE", default_value = "network.toml")]
        out: PathBuf,
    },
    /// Check a network file and show it, with the fingerprint that people compare
    #[command(after_help = "Example: shoal-node network show /etc/shoal/network.toml")]
    Show {
        /// The network file to show
        #[arg(default_value = "network.toml")]
        file: PathBuf,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum AuthorityVerb {
    /// Ask an authority that runs who asks for links and is on none of its lists, and who described itself and is not listed
    #[command(after_help = "Example: shoal-node authority pending -c /etc/shoal/config.toml")]
    Pending {
        /// The authority's configuration
        #[arg(short, long, value_name = "FILE", default_value = "config.toml")]
        config: PathBuf,
        /// The authority's control socket, instead of the one that the configuration says
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
}

fn authority_address(text: &str) -> Result<AuthorityAddress, String> {
    let (identity, address) =
        text.split_once('=').ok_or("wants an identity, =, and an address with a port")?;
    Ok(AuthorityAddress {
        identity: identity.parse().map_err(|error: shoal_topology::Error| error.to_string())?,
        address: shoal_host::config::parse_address(address.trim())?,
    })
}

fn epoch(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.strip_prefix(digits) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        _ => return Err("wants seconds, or a number with s, m or h: 20m".into()),
    };
    let number: u32 = digits.parse().map_err(|_| "wants a number, as in 20m")?;
    number.checked_mul(unit).ok_or_else(|| "is longer than any epoch".into())
}

pub(crate) fn network(verb: NetworkVerb) -> Done {
    match verb {
        NetworkVerb::New { name, authorities: authority_addresses, epoch: epoch_s, trial, out } => {
            let authorities = authority_addresses
                .iter()
                .map(|authority_address| authority_address.identity)
                .collect();
            let network = Network { name, authorities, epoch_s, trial };
            let shown = founding::found(network, authority_addresses, &out).map_err(because)?;
            shown.warnings().iter().for_each(|warning| warn(warning));
            say(&format!("wrote {}", out.display()));
            say(shown.text().trim_end());
            say(
                "next: give the file to everyone; each compares the fingerprint with yours by another way than the file came: \
                 `shoal-node network show FILE`, `shoal-client check`",
            );
        }
        NetworkVerb::Show { file, json } => {
            let shown = founding::look(&file).map_err(because)?;
            if json {
                say(&shown.json().to_string());
            } else {
                say(shown.text().trim_end());
                shown.warnings().iter().for_each(|warning| warn(warning));
            }
        }
    }
    Ok(())
}

pub(crate) fn identity(given: &Given) -> Done {
    say(&daemon::identity(&load(given)?).map_err(because)?.to_string());
    Ok(())
}

pub(crate) fn parameters(file: Option<PathBuf>) -> Done {
    let parameters = match file {
        Some(file) => founding::read_parameters(&file).map_err(because)?,
        None => Parameters::default(),
    };
    say(founding::parameters_toml(&parameters).trim_end());
    Ok(())
}

pub(crate) fn authority(verb: AuthorityVerb) -> Done {
    let AuthorityVerb::Pending { config, socket, json } = verb;
    let status = query(&config, socket)?;
    let Some(pending) = status.get("pending") else {
        return Err(failed(std::io::Error::other(
            "the program that answers is no authority: only authorities have lists",
        )));
    };
    if json {
        say(&pending.to_string());
        return Ok(());
    }
    let of = |what: &str| pending.get(what).and_then(|list| list.as_array()).cloned();
    let lists = [
        (
            "not_on_a_list",
            "asks for a link and is on no list; compare it with what its operator told you, and put it into `nodes` or `exits`",
        ),
        ("left_out", "is on the list and not in the document"),
    ];
    let mut none = true;
    for (name, words) in lists {
        for entry in of(name).into_iter().flatten() {
            none = false;
            match entry.as_str() {
                Some(identity) => say(&format!("{identity} {words}")),
                None => say(daemon::status::text(&entry).trim_end()),
            }
        }
    }
    if none {
        say("nobody asks who is not listed");
    }
    Ok(())
}
