//! What members ask their client on the command line about groups.

use clap::Subcommand;
use serde_json::{Value, json};
use shoal_host::stdout::line;

use super::messages::{list, number, plain, text};
use super::{Options, asking};

/// What is done with a group. A group is named as it is called, or by its identifier.
#[derive(Subcommand)]
pub(crate) enum GroupVerb {
    /// Print the groups that this client knows.
    ///
    /// Example: shoal-client group list
    List {
        #[command(flatten)]
        options: Options,
        /// Print lines of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print who belongs to a group, and what they may do.
    ///
    /// Example: shoal-client group show Finance
    Show {
        #[command(flatten)]
        options: Options,
        /// What it is called, or its identifier.
        group: String,
    },
    /// Found a group of yourself and others; you are its owner.
    ///
    /// Example: shoal-client group found Finance Alice Bob
    Found {
        #[command(flatten)]
        options: Options,
        /// What it is called.
        name: String,
        /// Who belongs to it: whole names, or beginnings of words of them.
        people: Vec<String>,
    },
    /// Add people. They see who belongs to the group and what was done to it, and none of what was written before.
    ///
    /// Example: shoal-client group add Finance Carol
    Add {
        #[command(flatten)]
        options: Options,
        /// What it is called, or its identifier.
        group: String,
        /// Whole names, or beginnings of words of them.
        #[arg(required = true)]
        people: Vec<String>,
    },
    /// Remove people: nothing more is sent to them by those who have heard of it.
    ///
    /// Example: shoal-client group remove Finance Carol
    Remove {
        #[command(flatten)]
        options: Options,
        /// What it is called, or its identifier.
        group: String,
        /// Whole names, or beginnings of words of them.
        #[arg(required = true)]
        people: Vec<String>,
    },
    /// Give somebody a role: owner, admin or member.
    ///
    /// Example: shoal-client group appoint Finance Alice admin
    Appoint {
        #[command(flatten)]
        options: Options,
        /// What it is called, or its identifier.
        group: String,
        /// The whole name, or the beginning of a word of it.
        name: String,
        /// owner, admin or member.
        role: String,
    },
    /// Call a group otherwise.
    ///
    /// Example: shoal-client group rename Finance Accounts
    Rename {
        #[command(flatten)]
        options: Options,
        /// What it is called, or its identifier.
        group: String,
        /// What it is called from now on.
        name: String,
    },
    /// Have all that is written to a group erased so many seconds after it was read; 0 for never.
    ///
    /// Example: shoal-client group expire Finance 604800
    Expire {
        #[command(flatten)]
        options: Options,
        /// What it is called, or its identifier.
        group: String,
        /// After how many; 0 for never.
        seconds: u32,
    },
    /// Belong to a group no more.
    ///
    /// Example: shoal-client group leave Finance
    Leave {
        #[command(flatten)]
        options: Options,
        /// What it is called, or its identifier.
        group: String,
    },
}

/// Does what is asked, and prints the group as it is then.
pub(crate) fn act(verb: GroupVerb) -> anyhow::Result<()> {
    let (options, word, fields) = match verb {
        GroupVerb::List { options, json } => {
            for group in list(&asking(&options)?.once("groups", &json!({}))?, "groups") {
                if json { line(&group)? } else { line(headline(&group))? }
            }
            return Ok(());
        }
        GroupVerb::Show { options, group } => (options, "group", json!({ "group": group })),
        GroupVerb::Found { options, name, people } => {
            (options, "found", json!({ "name": name, "people": people }))
        }
        GroupVerb::Add { options, group, people } => {
            (options, "group", json!({ "group": group, "add": people }))
        }
        GroupVerb::Remove { options, group, people } => {
            (options, "group", json!({ "group": group, "remove": people }))
        }
        GroupVerb::Appoint { options, group, name, role } => {
            (options, "group", json!({ "group": group, "name": name, "role": role }))
        }
        GroupVerb::Rename { options, group, name } => {
            (options, "group", json!({ "group": group, "rename": name }))
        }
        GroupVerb::Expire { options, group, seconds } => {
            (options, "group", json!({ "group": group, "expires_s": seconds }))
        }
        GroupVerb::Leave { options, group } => {
            (options, "group", json!({ "group": group, "leave": true }))
        }
    };
    show(&asking(&options)?.once(word, &fields)?)
}

fn is(of: &Value, key: &str) -> bool {
    of.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn headline(group: &Value) -> String {
    let people = list(group, "people").len();
    let gone = if is(group, "member") { "" } else { ", to which you belong no more" };
    let people = if people == 1 { "1 person".into() } else { format!("{people} people") };
    format!("{}: {people}{gone}", plain(text(group, "name")))
}

fn show(group: &Value) -> anyhow::Result<()> {
    line(headline(group))?;
    for person in list(group, "people") {
        let you = if is(&person, "own") { " (you)" } else { "" };
        let role = match text(&person, "role") {
            "member" => String::new(),
            role => format!(", {role}"),
        };
        line(format_args!("    {}{you}{role}", plain(text(&person, "name"))))?;
    }
    match number(group, "expires_s") {
        0 => {}
        after => line(format_args!("What is written is erased {after} s after it was read."))?,
    }
    let (devices, most) = (number(group, "devices"), number(group, "most_devices"));
    if is(group, "member") {
        line(format_args!(
            "A message goes to {devices} devices; by this class to at most {most}."
        ))?;
    }
    line(format_args!("identifier: {}", text(group, "group")))?;
    Ok(())
}
