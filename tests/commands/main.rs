//! The command line, and the pages that tell of it. One program: each that is linked by itself takes seconds.

mod cli;
mod docs;
mod process;
mod reach;
mod terminal;
