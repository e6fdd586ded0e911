use celery_worker::prelude::*;

struct Mailer;

impl Mailer {
    #[task(name = "mail.send")]
    async fn send(&self, to: String) -> TaskResult<()> {
        drop(to);
        Ok(())
    }
}

fn main() {}
