//! What the compiler says to a task that is written wrongly: each case of `ui/fail` with its `.stderr`, and that
//! everything in `ui/pass` compiles. `TRYBUILD=overwrite` writes the `.stderr` files anew.

#[test]
fn misuse_is_told_in_sentences() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
