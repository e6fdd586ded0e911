//! What the compiler says to a task that is written wrongly: each case of `ui` with its `.stderr`, which
//! `TRYBUILD=overwrite` writes anew. That well-written tasks compile is tested in `src/task/tests.rs`.

#[test]
fn misuse_is_told_in_sentences() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
