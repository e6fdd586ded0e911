//! Stamps: values that travel with every call of a workflow, in the options `stamped_headers` and one per stamp.

use serde_json::Value;

use super::{Canvas, Signature, SignatureError, SignatureOptions};
use crate::HeaderMap;

impl Canvas {
    /// Stamps every call in the tree, and what is linked to them. A call that has a stamp of the same name keeps its own.
    ///
    /// # Errors
    /// An option is not what it must be.
    pub fn stamp(&mut self, stamps: &HeaderMap) -> Result<(), SignatureError> {
        match self {
            Self::Task(signature) => signature.stamp(stamps),
            Self::Chain(chain) => {
                stamp_links(&mut chain.frame.options, stamps)?;
                chain.steps.iter_mut().try_for_each(|step| step.stamp(stamps))
            }
            Self::Group(group) => {
                stamp_links(&mut group.frame.options, stamps)?;
                group.members.iter_mut().try_for_each(|member| member.stamp(stamps))
            }
            Self::Chord(chord) => {
                stamp_links(&mut chord.frame.options, stamps)?;
                chord.header.iter_mut().try_for_each(|member| member.stamp(stamps))?;
                match &mut chord.body {
                    Some(body) => body.stamp(stamps),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Signature {
    /// Stamps the call, and what is linked to it. A stamp of the same name that it has already stays.
    ///
    /// # Errors
    /// An option is not what it must be.
    pub fn stamp(&mut self, stamps: &HeaderMap) -> Result<(), SignatureError> {
        stamp_links(&mut self.options, stamps)?;
        let mut names = self.options.stamped_headers()?;
        for (name, value) in stamps {
            if !names.contains(name) {
                names.push(name.clone());
                self.options.set::<Value>(name, value);
            }
        }
        self.options.set("stamped_headers", &names);
        Ok(())
    }
}

fn stamp_links(options: &mut SignatureOptions, stamps: &HeaderMap) -> Result<(), SignatureError> {
    for (name, mut links) in [("link", options.link()?), ("link_error", options.link_error()?)] {
        if links.is_empty() {
            continue;
        }
        for link in &mut links {
            let mut canvas = Canvas::from_signature(link.clone())?;
            canvas.stamp(stamps)?;
            *link = canvas.to_signature();
        }
        options.set(name, &links);
    }
    Ok(())
}
