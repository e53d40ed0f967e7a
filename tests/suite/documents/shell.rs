//! Commands in blocks of shell: as much of the shell's grammar as documents use.

use std::process::{Command, Stdio};

use crate::support::tollgate::{finish, repository};

/// Whether a shell could read it.
pub(super) fn is_shell(text: &str) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.arg("-n").stdout(Stdio::piped()).stderr(Stdio::piped());
    let finished = finish(&mut command, text);
    if finished.code == Some(0) { Ok(()) } else { Err(finished.errors) }
}

/// Splits text into commands of words.
#[derive(Default)]
struct Splitter {
    commands: Vec<Vec<String>>,
    command: Vec<String>,
    /// `None` between words.
    word: Option<String>,
    /// The next word is a file that is written or read.
    redirects: bool,
}

/// Commands with their words, without quotes, comments and redirections.
pub(super) fn commands(text: &str) -> Vec<Vec<String>> {
    let mut splitter = Splitter::default();
    let text = without_here_documents(text);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('\n') | None => {}
                Some(escaped) => splitter.push(escaped),
            },
            '\'' | '"' => {
                splitter.word.get_or_insert_default();
                while let Some(quoted) = letters.next().filter(|&next| next != letter) {
                    let is_escape = letter == '"' && quoted == '\\';
                    splitter.push(if is_escape { letters.next().unwrap_or(quoted) } else { quoted });
                }
            }
            '#' if splitter.word.is_none() => while letters.next_if(|&next| next != '\n').is_some() {},
            '<' | '>' => {
                splitter.begin_redirection();
                while letters.next_if(|next| "<>&".contains(*next)).is_some() {}
            }
            ';' | '|' | '&' | '(' | ')' | '`' | '\n' => splitter.end_command(),
            space if space.is_whitespace() => splitter.end_word(),
            other => splitter.push(other),
        }
    }
    splitter.end_command();
    splitter.commands
}

/// What stands between `<<END` and `END` is no command.
fn without_here_documents(text: &str) -> String {
    let mut kept = String::new();
    let mut end: Option<String> = None;
    for line in text.lines() {
        match &end {
            Some(word) if line.trim() == word => end = None,
            Some(_) => {}
            None => {
                let word = line.split_once("<<").map(|(_, word)| word.trim_start_matches('-').trim());
                let word = word.and_then(|word| word.split([' ', '|', ';']).next());
                end = word.map(|word| word.trim_matches(['\'', '"']).to_owned()).filter(|word| !word.is_empty());
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
}

impl Splitter {
    fn push(&mut self, letter: char) {
        self.word.get_or_insert_default().push(letter);
    }

    fn begin_redirection(&mut self) {
        // `2>` names a descriptor, not a word.
        if self.word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
            self.word = None;
        }
        self.end_word();
        self.redirects = true;
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take()
            && !std::mem::take(&mut self.redirects)
        {
            self.command.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.redirects = false;
        if !self.command.is_empty() {
            self.commands.push(std::mem::take(&mut self.command));
        }
    }
}

/// Words that stand before a command.
const BEFORE: [&str; 12] = ["do", "then", "else", "if", "while", "until", "!", "{", "time", "sudo", "exec", "nohup"];

/// The arguments of a command that calls the program: by its name, through cargo, or in a container.
pub(super) fn arguments_of_a_call(command: &[String]) -> Option<&[String]> {
    let is_setting = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let begins = command.iter().position(|word| !is_setting(word) && !BEFORE.contains(&word.as_str()))?;
    let command = &command[begins..];
    let is_program = |word: &String| word == "tollgate" || word.ends_with("/tollgate");
    let behind = |at: usize| &command[at + 1..];
    match command.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["cargo", "run", ..] => Some(command.iter().position(|word| word == "--").map_or(&[], behind)),
        // The image has the program's name, or the program is named in a container.
        ["docker" | "podman", "run" | "exec", ..] => command.iter().rposition(is_program).map(behind),
        ["kubectl", "exec", ..] => {
            let at = command.iter().position(|word| word == "--")? + 1;
            command.get(at).is_some_and(is_program).then(|| behind(at))
        }
        _ if is_program(&command[0]) => Some(behind(0)),
        _ => None,
    }
}

/// Whether the program would take these arguments.
pub(super) fn is_taken(arguments: &[String]) -> Result<(), String> {
    refusal(arguments).map_or(Ok(()), |error| Err(error.to_string()))
}

/// The same of a command that a sentence only names: arguments may be missing.
pub(super) fn is_known(arguments: &[String]) -> Result<(), String> {
    let refusal = refusal(arguments).filter(|error| error.kind() != clap::error::ErrorKind::MissingRequiredArgument);
    refusal.map_or(Ok(()), |error| Err(error.to_string()))
}

fn refusal(arguments: &[String]) -> Option<clap::Error> {
    let words = [&["tollgate".to_owned()], arguments].concat();
    tollgate::cli::command().try_get_matches_from(words).err().filter(clap::Error::use_stderr)
}

/// The paths of the repository that a word names, `-v "$PWD/deploy/x:/y"` too.
pub(super) fn paths_in(word: &str) -> Vec<&str> {
    let parts = word.split([':', '=', ',', '"', '\'']);
    let relative = parts.map(|part| part.trim_start_matches("$PWD/").trim_start_matches("./"));
    let is_ours = |path: &&str| {
        let first = path.split('/').next().unwrap_or_default();
        path.contains('/')
            && !first.is_empty()
            && first != "target"
            && first != ".."
            && repository().join(first).is_dir()
    };
    relative.filter(is_ours).collect()
}

/// Whether a path of the repository exists; `*` and NAME stand for anything in one folder.
pub(super) fn exists(path: &str) -> bool {
    let Some(at) = path.find('*').or_else(|| path.find("NAME")) else { return repository().join(path).exists() };
    let (folder, beginning) = path[..at].rsplit_once('/').unwrap_or(("", &path[..at]));
    let names = std::fs::read_dir(repository().join(folder)).into_iter().flatten();
    names.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
}

#[test]
fn commands_are_found_in_shell() {
    let found = commands(
        "A=1 tollgate check -c 'a b.yaml' 2>&1 >x | grep \"c \\\" d\"   # tollgate nonsense\n\
         for i in $(seq 2); do cargo run -- explain GET /x \\\n  --ip 192.0.2.7; done\ncat > f <<'END'\ntollgate no\nEND\n\
         docker run -v \"$PWD/p.yaml:/etc/tollgate/proxy.yaml\" tollgate status\ndocker build -t tollgate .\n",
    );
    let calls: Vec<_> =
        found.iter().filter_map(|command| arguments_of_a_call(command)).map(|words| words.join(" ")).collect();
    assert_eq!(calls, ["check -c a b.yaml", "explain GET /x --ip 192.0.2.7", "status"]);
    assert!(found.contains(&vec!["grep".to_owned(), "c \" d".to_owned()]), "{found:?}");
    assert!(is_taken(&["check".to_owned(), "--nonsense".to_owned()]).is_err());
    assert!(is_taken(&["--help".to_owned()]).is_ok());
    assert!(exists("deploy/systemd/tollgate.*") && !exists("deploy/systemd/nothing.*") && !exists("deploy/nothing"));
    assert_eq!(paths_in("$PWD/deploy/x:/etc/y"), ["deploy/x"]);
}
