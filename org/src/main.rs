//! The command line of an organisation's admins.

#![allow(clippy::disallowed_methods)] // The program's own edge of the world.

mod running;
mod show;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shoal_host::exit::{Exit, report};
use shoal_host::{about, memory, secret, stdout};
use shoal_org::{Approval, Entered, OrgError, Registry};
use shoal_organisation::enrolment::Invited;
use shoal_organisation::{Admin, Draft, Entry, PersonFlags, Removed, Request, Role};
use shoal_topology::{Identity, SecretIdentity};

/// Issue the identities of an organisation's members: people and their devices, in a signed list that all of them hold.
#[derive(Parser)]
#[command(version = about::version(), arg_required_else_help = true)]
struct Arguments {
    /// The directory of the organisation's files
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Sign as the admin of this number; needed where the keys of several lie in DIR/keys
    #[arg(long = "as", global = true, value_name = "ADMIN")]
    admin: Option<u16>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Found an organisation: its key, the key of its first owner, its directory
    #[command(
        after_help = "Example: shoal-org --dir acme init --name acme --owner 'Olga Owner' --network network.toml"
    )]
    Init {
        /// What it is called: at most 32 bytes
        #[arg(long)]
        name: String,
        /// The name of its first owner
        #[arg(long)]
        owner: String,
        /// The network file, which goes along with invitations
        #[arg(long, value_name = "FILE")]
        network: Option<PathBuf>,
    },
    /// Make the files of another admin on his own machine: from the organisation's directory file, and its key
    #[command(after_help = "Example: shoal-org --dir acme join --directory directory --key abcd…")]
    Join {
        /// The file `directory` of an admin who is there already
        #[arg(long, value_name = "FILE")]
        directory: PathBuf,
        /// The organisation's key, compared on another way
        #[arg(long)]
        key: String,
    },
    /// Make a key for an admin, and print its public half for `shoal-org admin add`
    #[command(after_help = "Example: shoal-org --dir acme admin-key 2")]
    AdminKey {
        /// The number that the admin will have: one more than the last
        number: u16,
    },
    /// Say who may sign
    #[command(subcommand)]
    Admin(AdminVerb),
    /// Invite somebody: prints a code, and writes a file for him if asked to
    #[command(
        after_help = "Example: shoal-org --dir acme invite 'Alice Example' --unit Finance --out alice.toml"
    )]
    Invite {
        /// The full name; or, with --device, of whom in the directory
        name: String,
        /// Where in the organisation
        #[arg(long, default_value = "", conflicts_with = "device")]
        unit: String,
        /// Others hold back longer what they write to new devices of this person
        #[arg(long, conflicts_with = "device")]
        marked: bool,
        /// Belongs to somebody else, and is shown so
        #[arg(long, conflicts_with = "device")]
        external: bool,
        /// A further device of somebody who is in the directory
        #[arg(long)]
        device: bool,
        /// Hours until it is over
        #[arg(long, value_name = "HOURS", default_value_t = 72, value_parser = clap::value_parser!(u64).range(1..=8_760))]
        hours: u64,
        /// Whoever has the code is let in unseen, by a service that runs with --auto: nobody hears his digits
        #[arg(long)]
        auto: bool,
        /// By what the organisation's provider knows him, as SCIM's userName does: `shoal-org scim` finds him by it
        #[arg(long, value_name = "ACCOUNT")]
        account: Option<String>,
        /// A file with the code, the organisation's key and the network file, for `shoal-client join`
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List invitations, and the requests that came for them with their six digits
    Requests {
        /// One line of JSON each
        #[arg(long)]
        json: bool,
    },
    /// Take a request that came by hand
    #[command(after_help = "Example: shoal-org --dir acme receive alice.request")]
    Receive {
        /// The request; `-` for standard input
        file: PathBuf,
    },
    /// Let in whoever reads these six digits to you
    #[command(after_help = "Example: shoal-org --dir acme approve 482913")]
    Approve {
        /// As the new member sees them
        digits: String,
    },
    /// End an invitation: by the name that it is for, or the digits of its request
    Refuse {
        /// The name or the digits
        name: String,
    },
    /// Print by what the organisation's provider knows its people, or say it of one: the userName of SCIM
    #[command(
        after_help = "Example: shoal-org --dir acme account 'Alice Example' alice@example.org"
    )]
    Account {
        /// Of whom in the directory
        #[arg(requires = "account")]
        name: Option<String>,
        /// By what the provider's admins know him
        account: Option<String>,
    },
    /// Remove a person with all devices, or one device
    #[command(
        after_help = "Examples: shoal-org --dir acme remove 'Alice Example'\n          shoal-org --dir acme remove --device 7"
    )]
    Remove {
        /// The name, or its beginning
        #[arg(required_unless_present_any = ["person", "device"])]
        name: Option<String>,
        /// A person by its number
        #[arg(long, value_name = "NUMBER", conflicts_with = "name")]
        person: Option<u32>,
        /// One device by its number
        #[arg(long, value_name = "NUMBER", conflicts_with_all = ["name", "person"])]
        device: Option<u32>,
    },
    /// Print what holds for all members, or change it
    #[command(after_help = "Example: shoal-org --dir acme policy --approvals 2 --hold-s 3600")]
    Policy {
        /// How many admins sign what gives somebody power: 1 or 2
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=2))]
        approvals: Option<u8>,
        /// How long members hold back what they write to a device that is new to them
        #[arg(long, value_name = "SECONDS")]
        hold_s: Option<u32>,
        /// The same for persons who are marked
        #[arg(long, value_name = "SECONDS")]
        marked_hold_s: Option<u32>,
        /// Whoever holds a directory that is older than twice this has to name his device to get what is new
        #[arg(long, value_name = "SECONDS")]
        max_age_s: Option<u32>,
    },
    /// Tell all members something
    #[command(
        after_help = "Example: shoal-org --dir acme announce 'The office is closed on Friday'"
    )]
    Announce {
        /// At most 1,024 bytes
        text: String,
    },
    /// Print a draft and add a signature to it; it stands once enough have signed
    #[command(after_help = "Example: shoal-org --dir acme sign drafts/7-1f2e3d4c.draft")]
    Sign {
        /// The file that another admin gave
        draft: PathBuf,
        /// Sign without asking
        #[arg(long)]
        yes: bool,
    },
    /// Take batches that other admins signed: a complete draft, or the directory file of another admin
    Take {
        /// The draft or the directory
        file: PathBuf,
    },
    /// Print the people, their devices, and the admins
    Show {
        /// Also those who were removed
        #[arg(long)]
        all: bool,
        /// One line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what was entered, when, and which admins signed: the acts of admins, and nothing of members
    Log {
        /// One line of JSON each
        #[arg(long)]
        json: bool,
    },
    /// Write the signed directory into a file, for members and other admins; they verify it whole
    Export {
        /// The file; it must not be there
        file: PathBuf,
    },
    /// Hand the directory's head to the authorities, and wait until it stands in their document
    #[command(after_help = "Example: shoal-org --dir acme publish --network network.toml")]
    Publish {
        /// The network file, if not that of `init`
        #[arg(long, value_name = "FILE")]
        network: Option<PathBuf>,
    },
    /// Run the service that takes requests and gives members the directory, inside the network, until SIGTERM or Ctrl-C
    #[command(
        after_help = "Example: shoal-org --dir acme serve -c client.toml --token gateway.token"
    )]
    Serve(running::ServeOptions),
    /// Remove people whose accounts the organisation's provider ends: an endpoint for SCIM 2.0 on loopback, until SIGTERM or Ctrl-C
    #[command(after_help = "Example: shoal-org --dir acme scim --publish")]
    Scim(running::ScimOptions),
}

#[derive(Subcommand)]
enum AdminVerb {
    /// List an admin, by the key that `shoal-org admin-key` printed
    #[command(
        after_help = "Example: shoal-org --dir acme admin add 'Otto Owner' --role owner --key abcd…"
    )]
    Add {
        /// Who it is
        name: String,
        /// owner, issuer or announcer
        #[arg(long, value_parser = role)]
        role: Role,
        /// His public key
        #[arg(long)]
        key: Identity,
    },
    /// Give an admin another role
    Role {
        /// As `shoal-org show` prints it
        number: u16,
        /// owner, issuer or announcer
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// Take all power from an admin
    End {
        /// As `shoal-org show` prints it
        number: u16,
    },
}

fn role(name: &str) -> Result<Role, &'static str> {
    match name {
        "owner" => Ok(Role::Owner),
        "issuer" => Ok(Role::Issuer),
        "announcer" => Ok(Role::Announcer),
        _ => Err("there are owner, issuer and announcer"),
    }
}

fn main() -> ExitCode {
    // Before any key is read or made.
    for warning in memory::forbid_dumps() {
        report(&OrgError::Refused(format!("warning: {warning}")));
    }
    match run(Arguments::parse()) {
        Ok(()) => Exit::Done.into(),
        Err(error) if stdout::is_unread(&error) => Exit::Done.into(),
        Err(error) => {
            report(&error);
            error.exit().into()
        }
    }
}

fn run(Arguments { dir, admin, verb }: Arguments) -> Result<(), OrgError> {
    match verb {
        Verb::Init { name, owner, network } => {
            let registry = Registry::init(&dir, &name, &owner, network.as_deref())?;
            Ok(stdout::line(show::founded(&registry))?)
        }
        Verb::Join { directory, key } => {
            let registry = Registry::join(&dir, &directory, &key)?;
            Ok(stdout::line(format!(
                "{} entries of {}",
                registry.directory().size(),
                registry.directory().name()
            ))?)
        }
        Verb::AdminKey { number } => admin_key(&Registry::open(&dir)?, number),
        Verb::Publish { network } => {
            let mut registry = Registry::open(&dir)?;
            // It waits for documents, and a removal must not wait for it.
            registry.unlock();
            running::publish_head(&registry, network.as_deref())
        }
        Verb::Serve(options) => running::serve(&dir, admin, &options),
        Verb::Scim(options) => running::scim(&dir, admin, &options),
        verb => change_or_show(&mut Registry::open(&dir)?, admin, verb),
    }
}

fn change_or_show(registry: &mut Registry, admin: Option<u16>, verb: Verb) -> Result<(), OrgError> {
    match verb {
        Verb::Admin(verb) => {
            let entry = admin_entry(registry, verb)?;
            entered(registry.enter(vec![entry], admin)?)
        }
        Verb::Invite { name, unit, marked, external, device, hours, auto, account, out } => {
            let invited = if device {
                Invited::Device { person: registry.person(&name)? }
            } else {
                let one = |is, flag| if is { flag } else { PersonFlags::default() };
                let flags =
                    one(marked, PersonFlags::MARKED).with(one(external, PersonFlags::EXTERNAL));
                Invited::Person { name, unit, flags }
            };
            let approval = if auto { Approval::Service } else { Approval::Admin };
            invite(registry, invited, (approval, account), (hours, out.as_deref()))
        }
        Verb::Requests { json } => Ok(stdout::line(show::requests(registry, json))?),
        Verb::Receive { file } => {
            let open = registry.receive(Request::decode(&input(&file)?)?)?;
            let (invitation, digits) =
                (open.invitation.clone(), open.request.as_ref().map(Request::digits));
            let name = registry.name_of(&invitation);
            let digits = digits.unwrap_or_default();
            Ok(stdout::line(format!(
                "{name} asks with the digits {digits}: let the new member read them to you, then `shoal-org approve {digits}`"
            ))?)
        }
        Verb::Approve { digits } => entered(registry.approve(&digits, admin)?),
        Verb::Refuse { name } => registry.refuse(&name),
        Verb::Account { name: Some(name), account: Some(account) } => {
            registry.set_account(registry.person(&name)?, &account)
        }
        Verb::Account { .. } => Ok(stdout::line(show::accounts(registry))?),
        Verb::Remove { name, person, device } => {
            let removed = match (name, person, device) {
                (_, _, Some(device)) => Removed::Device(device),
                (_, Some(person), _) => Removed::Person(person),
                (name, ..) => Removed::Person(registry.person(&name.unwrap_or_default())?),
            };
            entered(registry.enter(vec![Entry::Remove(removed)], admin)?)
        }
        Verb::Policy { approvals: None, hold_s: None, marked_hold_s: None, max_age_s: None } => {
            Ok(stdout::line(show::policy(&registry.directory().policy()))?)
        }
        Verb::Policy { approvals, hold_s, marked_hold_s, max_age_s } => {
            let entry = registry.policy_with(|policy| {
                policy.approvals = approvals.unwrap_or(policy.approvals);
                policy.hold_s = hold_s.unwrap_or(policy.hold_s);
                policy.marked_hold_s = marked_hold_s.unwrap_or(policy.marked_hold_s);
                policy.max_age_s = max_age_s.unwrap_or(policy.max_age_s);
            });
            entered(registry.enter(vec![entry], admin)?)
        }
        Verb::Announce { text } => entered(registry.enter(vec![Entry::Announce { text }], admin)?),
        Verb::Sign { draft, yes } => sign(registry, admin, &draft, yes),
        Verb::Take { file } => take(registry, &file),
        Verb::Show { all, json } => {
            Ok(stdout::line(show::people(registry.directory(), all, json))?)
        }
        Verb::Log { json } => Ok(stdout::line(show::log(registry.directory(), json))?),
        Verb::Export { file } => {
            if file.exists() {
                return Err(OrgError::Refused(format!("{} is there already", file.display())));
            }
            Ok(secret::replace(&file, &registry.directory().encode())?)
        }
        // They are done before the files are opened.
        Verb::Init { .. }
        | Verb::Join { .. }
        | Verb::AdminKey { .. }
        | Verb::Publish { .. }
        | Verb::Serve(_)
        | Verb::Scim(_) => Ok(()),
    }
}

fn entered(entered: Entered) -> Result<(), OrgError> {
    let line = match entered {
        Entered::Standing(numbers) if numbers.end - numbers.start == 1 => {
            format!("entry {} stands; `shoal-org publish` tells the network", numbers.start)
        }
        Entered::Standing(numbers) => {
            format!(
                "entries {} to {} stand; `shoal-org publish` tells the network",
                numbers.start,
                numbers.end - 1
            )
        }
        Entered::Draft(path) => {
            format!(
                "another admin has to sign {}: give it to him for `shoal-org sign`",
                path.display()
            )
        }
    };
    Ok(stdout::line(line)?)
}

fn admin_key(registry: &Registry, number: u16) -> Result<(), OrgError> {
    let path = registry.key_file(number);
    let known = registry.directory().admins().any(|admin| admin.number == number);
    if known && !path.exists() {
        return Err(OrgError::Refused(format!(
            "admin {number} is listed already, and his key is not here"
        )));
    }
    let seed = secret::read_or_create(&path)?;
    Ok(stdout::line(SecretIdentity::from_bytes(&seed).identity())?)
}

fn admin_entry(registry: &Registry, verb: AdminVerb) -> Result<Entry, OrgError> {
    let known = |number: u16| {
        let found = registry.directory().admins().find(|admin| admin.number == number).cloned();
        found.ok_or_else(|| {
            OrgError::Refused(format!("there is no admin {number}: `shoal-org show` lists them"))
        })
    };
    Ok(Entry::Admin(match verb {
        AdminVerb::Add { name, role, key } => {
            let last =
                registry.directory().admins().map(|admin| admin.number).max().unwrap_or_default();
            Admin { number: last.saturating_add(1), name, key, role: Some(role) }
        }
        AdminVerb::Role { number, role } => Admin { role: Some(role), ..known(number)? },
        AdminVerb::End { number } => Admin { role: None, ..known(number)? },
    }))
}

fn invite(
    registry: &mut Registry,
    invited: Invited,
    terms: (Approval, Option<String>),
    (hours, out): (u64, Option<&Path>),
) -> Result<(), OrgError> {
    if let Some(out) = out.filter(|out| out.exists()) {
        return Err(OrgError::Refused(format!("{} is there already", out.display())));
    }
    let slip = registry.invite(invited, Some(hours * 3_600), terms)?;
    if let Some(out) = out {
        secret::replace(out, slip.to_toml().as_bytes())?;
    }
    Ok(stdout::line(show::invitation(&slip, hours, out))?)
}

fn sign(
    registry: &mut Registry,
    admin: Option<u16>,
    path: &Path,
    yes: bool,
) -> Result<(), OrgError> {
    let draft = Registry::read_draft(path)?;
    // What could not stand is refused before a name in it reaches the terminal.
    registry.check(&draft)?;
    stdout::line(show::batch(registry.directory(), &draft))?;
    if !yes && !asked("Sign this? [y/N] ")? {
        return Err(OrgError::Refused("not signed".into()));
    }
    let done = registry.sign(draft, admin)?;
    entered(done)
}

fn asked(question: &str) -> Result<bool, OrgError> {
    use std::io::Write as _;
    let mut out = stdout::Stdout;
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn take(registry: &mut Registry, path: &Path) -> Result<(), OrgError> {
    let done = match Registry::read_draft(path) {
        Ok(draft) => registry.take(&Draft::of(registry.directory().organisation(), draft))?,
        Err(_) => Entered::Standing(registry.follow(path)?),
    };
    entered(done)
}

/// A small file, or standard input.
fn input(path: &Path) -> Result<Vec<u8>, OrgError> {
    const MOST: u64 = 1 << 20;
    let mut bytes = Vec::new();
    let failed = |source| OrgError::File { path: path.into(), source };
    if path.as_os_str() == "-" {
        std::io::stdin().take(MOST).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    }
    Ok(bytes)
}
