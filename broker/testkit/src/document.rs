//! Documents whose commands are run: the fenced blocks of a Markdown file, and output with gaps.

use crate::program::{Program, Recipe, give_up, or_give_up};
use crate::{config, guard};
use anyhow::Context as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Stands between the outputs of two blocks.
const CUT: &str = "-- 8< --";
/// How long a whole document may take: debug builds on two busy cores.
const DOCUMENT: Duration = Duration::from_secs(300);

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the fence: `sh`, `text`, `rust`, …
    pub language: String,
    /// The lines between the fences.
    pub text: String,
    /// The line of the file that it begins at.
    pub line: usize,
}

/// The fenced blocks of a document of the repository.
///
/// # Panics
/// When it cannot be read.
pub fn blocks(path: &str) -> Vec<Block> {
    let text = fs::read_to_string(config::repository().join(path)).with_context(|| path.to_owned());
    fenced(&or_give_up(text))
}

fn fenced(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        // Blocks of lists are indented.
        match line.trim_start().strip_prefix("```") {
            Some(language) if !inside => {
                found.push(Block { language: language.to_owned(), text: String::new(), line: index + 2 });
                inside = true;
            }
            Some(_) => inside = false,
            None if inside => {
                if let Some(block) = found.last_mut() {
                    block.text += line;
                    block.text.push('\n');
                }
            }
            None => {}
        }
    }
    found
}

/// What the commands of a document find on the machine that they are run on.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    /// Comes before the first command.
    pub before: String,
    /// Words of the page, and what takes their place here: addresses and ports that may be taken.
    pub replaced: Vec<(String, String)>,
    /// Folders to be searched for programs first.
    pub path: Vec<PathBuf>,
    /// More variables.
    pub env: Vec<(String, String)>,
    /// Where the commands are run; a new folder if nothing is said.
    pub folder: Option<PathBuf>,
}

/// Runs the `sh` blocks of a document as one script, and compares what each printed with the `text` block that follows it.
/// Returns what all of them printed.
///
/// # Panics
/// When a command fails, or prints something else than the page shows.
pub async fn run(path: &str, desk: &Desk) -> String {
    let page = blocks(path);
    let commands: Vec<&Block> = page.iter().filter(|block| block.language == "sh").collect();
    let shown = page.iter().filter(|block| block.language == "text").count();
    if commands.is_empty() {
        give_up(&format!("{path} has no commands"));
    }
    let script: String = commands.iter().map(|block| format!("{}echo '{CUT}'\n", block.text)).collect();
    let output = shell(&script, desk).await;
    let outputs: Vec<&str> = output.split(&format!("{CUT}\n")).collect();
    let (mut compared, mut wrong) = (0, Vec::new());
    for (block, output) in commands.iter().zip(&outputs) {
        let next = page.iter().find(|other| other.line > block.line);
        if let Some(expected) = next.filter(|next| next.language == "text") {
            compared += 1;
            if !fits(&expected.text, output) {
                let (line, text) = (expected.line, &expected.text);
                wrong.push(format!("{path}:{line}: the page says\n{text}\nand printed was\n{output}"));
            }
        }
    }
    if compared != shown {
        wrong.push(format!("{path}: {shown} blocks show output, {compared} of them follow a command"));
    }
    if !wrong.is_empty() {
        give_up(&wrong.join("\n"));
    }
    output
}

/// Runs a script of bash that stops at the first failure; what it printed. Whatever it leaves running ends with it.
///
/// # Panics
/// When it fails or takes too long, with what it printed.
pub async fn shell(script: &str, desk: &Desk) -> String {
    or_give_up(try_shell(script, desk).await)
}

async fn try_shell(script: &str, desk: &Desk) -> anyhow::Result<String> {
    let folder = guard::folder("document")?;
    let errors = folder.join("errors");
    let mut script = script.to_owned();
    for (word, here) in &desk.replaced {
        script = script.replace(word, here);
    }
    let script = format!("exec 2>'{}'\n{}\n{script}", errors.display(), desk.before);
    let path: Vec<String> = desk.path.iter().map(|folder| format!("{}:", folder.display())).collect();
    let mut env = vec![("PATH".into(), format!("{}/usr/local/bin:/usr/bin:/bin", path.concat()).into())];
    env.extend(desk.env.iter().map(|(name, value)| (name.into(), value.into())));
    let args = ["-euo", "pipefail", "-c", &script].map(Into::into).to_vec();
    let inside = desk.folder.clone().unwrap_or_else(|| folder.clone());
    let recipe = Recipe { path: "bash".into(), args, env, folder: inside };
    let program = Program::run_logging("bash", recipe, folder.join("output.log"))?;
    let told = || fs::read_to_string(&errors).unwrap_or_default();
    let ended = crate::wait::polled(DOCUMENT, || match program.try_exit() {
        Ok(Some(status)) => Ok(status),
        _ => Err(()),
    });
    let status = ended.await.map_err(|()| {
        anyhow::anyhow!("the script takes more than {DOCUMENT:?}\n{}\n{}", program.log(), told())
    })?;
    let output = program.log();
    anyhow::ensure!(status.success(), "the script failed ({status})\n{output}\n{}", told());
    Ok(output)
}

/// The commands of `console` blocks, which stand behind `$ `, with what is shown below each; and the line of each.
///
/// # Panics
/// When the document cannot be read, or output stands before the first command.
pub fn console(path: &str) -> Vec<(usize, String, String)> {
    let mut found: Vec<(usize, String, String)> = Vec::new();
    for block in blocks(path).iter().filter(|block| block.language == "console") {
        let before = found.len();
        for (number, line) in block.text.lines().enumerate() {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push((block.line + number, command.to_owned(), String::new())),
                (None, Some((.., expected))) if number > 0 => *expected += &format!("{line}\n"),
                _ => give_up(&format!("{path}:{}: a `console` block begins with `$ `", block.line)),
            }
        }
        if found.len() == before {
            give_up(&format!("{path}:{}: no command", block.line));
        }
    }
    found
}

/// Whether a text is as expected, line by line. In a line `…` stands for any characters; a line that is `…` alone for any
/// lines, also none.
pub fn fits(expected: &str, text: &str) -> bool {
    let expected: Vec<&str> = expected.trim_end().lines().collect();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines_fit(&expected, &lines)
}

fn lines_fit(expected: &[&str], lines: &[&str]) -> bool {
    match expected.split_first() {
        None => lines.is_empty(),
        Some((&"…", rest)) => (0..=lines.len()).any(|skipped| lines_fit(rest, &lines[skipped..])),
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, others)| line_fits(first, line) && lines_fit(rest, others)),
    }
}

fn line_fits(expected: &str, line: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_language_text_and_place() {
        let found = fenced("a\n```sh\nls\n\npwd\n```\n```text\n…\n```\n");
        assert_eq!(found.len(), 2);
        assert_eq!((&*found[0].language, &*found[0].text, found[0].line), ("sh", "ls\n\npwd\n", 3));
        assert_eq!((&*found[1].language, found[1].line), ("text", 8));
    }

    #[test]
    fn gaps_are_filled_with_anything_and_nothing_else_is() {
        assert!(fits("5\n", "5\n"));
        assert!(!fits("5\n", "6\n"));
        assert!(!fits("5\n", "5\n6\n"));
        assert!(fits("a…c\n", "abc\n"));
        assert!(fits("a…c…e\n", "abcde\n"));
        assert!(!fits("a…c…e\n", "abde\n"));
        assert!(fits("…\nlast\n…\n", "one\ntwo\nlast\n"));
        assert!(!fits("…\nlast\n", "one\nlast\nmore\n"));
    }

    #[tokio::test]
    async fn what_a_script_leaves_running_ends_with_it() {
        let desk = Desk { replaced: vec![("WORD".into(), "word".into())], ..Desk::default() };
        let pid = shell("echo WORD >&2; sleep 600 >/dev/null & echo $!", &desk).await;
        let pid: u32 = pid.trim().parse().unwrap();
        let gone = crate::wait::polled(Duration::from_secs(10), || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // A zombie is as good as gone.
            if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
        });
        assert_eq!(gone.await, Ok(()));
        let failed = try_shell("echo one; echo WORD >&2; false", &desk).await.unwrap_err().to_string();
        assert!(failed.contains("one") && failed.contains("word"), "{failed}");
    }
}
