//! Workflows from Rust: typed by what they return, never failing while built.

use std::{fmt, marker::PhantomData};

use serde_json::Value;

use super::{Canvas, ChordNode, GroupNode, Sig, SigError, Signature};

/// Calls one after the other; typed by what the last one returns.
#[must_use = "a workflow does nothing until it is sent"]
pub struct Chain<O>(Built<O>);

/// Calls at once; typed by what each of them returns.
#[must_use = "a workflow does nothing until it is sent"]
pub struct Group<O>(Built<O>);

/// A group and a body that gets its results; typed by what the body returns.
#[must_use = "a workflow does nothing until it is sent"]
pub struct Chord<O>(Built<O>);

/// A tree, or the first thing that went wrong while it was built.
struct Built<O> {
    canvas: Result<Canvas, SigError>,
    output: PhantomData<fn() -> O>,
}

/// A workflow that can be part of another one.
pub trait IntoCanvas {
    /// The tree.
    ///
    /// # Errors
    /// The first thing that went wrong while it was built.
    fn into_canvas(self) -> Result<Canvas, SigError>;
}

/// Starts a chain.
///
/// ```
/// # use celery_protocol::{Sig, chain};
/// let steps = chain(Sig::<i64>::new("t.add").arg(2).arg(3)).then(Sig::<i64>::new("t.double"));
/// ```
pub fn chain<O>(first: Sig<O>) -> Chain<O> {
    Chain(Built::of(first.into_canvas()))
}

/// A group of calls of one type; [`Group::of`] takes any workflows.
pub fn group<O>(calls: impl IntoIterator<Item = Sig<O>>) -> Group<O> {
    Group::collect(calls.into_iter().map(Sig::into_canvas))
}

/// A chord.
pub fn chord<O>(header: impl IntoCanvas, body: Sig<O>) -> Chord<O> {
    Chord(Built::of(
        header.into_canvas().and_then(|header| Ok(ChordNode::of(header, body.into_canvas()?).into())),
    ))
}

impl<O> Chain<O> {
    /// With another step.
    pub fn then<P>(self, next: Sig<P>) -> Chain<P> {
        self.then_canvas(next)
    }

    /// With another workflow as next step; say what it returns.
    pub fn then_canvas<P>(self, next: impl IntoCanvas) -> Chain<P> {
        Chain(Built::of(self.0.canvas.and_then(|canvas| joined(canvas, next.into_canvas()?))))
    }
}

impl Group<Value> {
    /// A group of any workflows.
    pub fn of(members: impl IntoIterator<Item = Canvas>) -> Self {
        Self::collect(members.into_iter().map(Ok))
    }
}

impl<O> Group<O> {
    fn collect(members: impl Iterator<Item = Result<Canvas, SigError>>) -> Self {
        Self(Built::of(members.collect::<Result<Vec<_>, _>>().map(|members| GroupNode::of(members).into())))
    }
}

fn joined(canvas: Canvas, next: Canvas) -> Result<Canvas, SigError> {
    canvas.then(next).map_err(|err| SigError::new("chain", &err.to_string()))
}

impl<O> Built<O> {
    fn of(canvas: Result<Canvas, SigError>) -> Self {
        Self { canvas, output: PhantomData }
    }

    fn change(mut self, change: impl FnOnce(&mut Canvas) -> Result<(), SigError>) -> Self {
        if let Ok(canvas) = &mut self.canvas
            && let Err(err) = change(canvas)
        {
            self.canvas = Err(err);
        }
        self
    }
}

fn link(canvas: &mut Canvas, callback: impl IntoCanvas) -> Result<(), SigError> {
    let callback = callback.into_canvas()?.to_signature();
    canvas.link(&callback).map_err(|err| SigError::new("link", &err.to_string()))
}

fn link_error(canvas: &mut Canvas, errback: impl IntoCanvas) -> Result<(), SigError> {
    let errback = errback.into_canvas()?.to_signature();
    canvas.link_error(&errback).map_err(|err| SigError::new("link_error", &err.to_string()))
}

fn stamp(canvas: &mut Canvas, name: &str, value: impl serde::Serialize) -> Result<(), SigError> {
    let problem = |err: &dyn fmt::Display| SigError::new("stamp", &err.to_string());
    let value = serde_json::to_value(value).map_err(|err| problem(&err))?;
    let stamps = [(name.to_owned(), value)].into_iter().collect();
    canvas.stamp(&stamps).map_err(|err| problem(&err))
}

impl<O> Sig<O> {
    /// Then calls `callback` with the result.
    pub fn link(self, callback: impl IntoCanvas) -> Self {
        self.through_canvas(|canvas| link(canvas, callback))
    }

    /// Calls `errback` on failure.
    pub fn link_error(self, errback: impl IntoCanvas) -> Self {
        self.through_canvas(|canvas| link_error(canvas, errback))
    }

    /// With a stamp.
    pub fn stamp(self, name: &str, value: impl serde::Serialize) -> Self {
        self.through_canvas(|canvas| stamp(canvas, name, value))
    }

    /// A group that runs the task for all items, `size` of them in each message: Python's `task.chunks(items, size).group()`.
    /// Each item is the list of the arguments, as in [`starmap`](Self::starmap). A size of 0 counts as 1.
    ///
    /// ```
    /// # use celery_protocol::{IntoCanvas as _, Sig};
    /// let sums = Sig::<i64>::new("t.add").chunks([(1, 1), (2, 2), (3, 3)], 2);
    /// assert_eq!(sums.into_canvas()?.chord_size(), 2);
    /// # Ok::<_, celery_protocol::SigError>(())
    /// ```
    pub fn chunks<T: serde::Serialize>(
        self,
        items: impl IntoIterator<Item = T>,
        size: usize,
    ) -> Group<Vec<O>> {
        let items: Vec<T> = items.into_iter().collect();
        group(items.chunks(size.max(1)).map(|piece| self.clone().starmap(piece)))
    }

    fn through_canvas(self, change: impl FnOnce(&mut Canvas) -> Result<(), SigError>) -> Self {
        let built: Built<O> = Built::of(self.into_signature().map(Canvas::Task)).change(change);
        match built.canvas {
            Ok(canvas) => canvas.to_signature().into(),
            Err(err) => err.into(),
        }
    }
}

macro_rules! workflow {
    ($($name:ident),*) => {
        $(
            impl<O> $name<O> {
                /// Then calls `callback`: see [`Canvas::link`].
                pub fn link(self, callback: impl IntoCanvas) -> Self {
                    Self(self.0.change(|canvas| link(canvas, callback)))
                }

                /// Calls `errback` on failure: see [`Canvas::link_error`].
                pub fn link_error(self, errback: impl IntoCanvas) -> Self {
                    Self(self.0.change(|canvas| link_error(canvas, errback)))
                }

                /// With a stamp on every call.
                pub fn stamp(self, name: &str, value: impl serde::Serialize) -> Self {
                    Self(self.0.change(|canvas| stamp(canvas, name, value)))
                }

                /// The same workflow, with another idea of what it returns.
                pub fn returning<P>(self) -> $name<P> {
                    $name(Built::of(self.0.canvas))
                }
            }

            impl<O> IntoCanvas for $name<O> {
                fn into_canvas(self) -> Result<Canvas, SigError> {
                    self.0.canvas
                }
            }

            impl<O> Clone for $name<O> {
                fn clone(&self) -> Self {
                    Self(Built::of(self.0.canvas.clone()))
                }
            }

            impl<O> fmt::Debug for $name<O> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::Debug::fmt(&self.0.canvas, f)
                }
            }
        )*
    };
}

workflow!(Chain, Group, Chord);

impl<O> IntoCanvas for Sig<O> {
    fn into_canvas(self) -> Result<Canvas, SigError> {
        self.into_signature().map(Canvas::Task)
    }
}

impl IntoCanvas for Canvas {
    fn into_canvas(self) -> Result<Canvas, SigError> {
        Ok(self)
    }
}

impl IntoCanvas for Signature {
    fn into_canvas(self) -> Result<Canvas, SigError> {
        Ok(Canvas::Task(self))
    }
}
