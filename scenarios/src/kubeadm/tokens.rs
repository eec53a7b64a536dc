//! Bootstrap tokens: listed, tried, made, chosen, refused.

use anyhow::Context as _;
use podwire_scenario::{
    Cause, Failure, Lab, Profile, Sabotage, Scenario, StageName, Token, assert, ensure,
    ensure_none, fails, secs, steps,
};

use super::token_secret::{GROUP, SHOW, is_secret_of, secret_in};
use crate::catalogue::{E8, E9, E10, E11, E39};

/// E8, E9, E10, E11, E39!: the documents' way to a token of one's own.
///
/// Their dry run indents the Secret that it prints; today's does not. That it needs a kubeconfig is
/// seen on a node which has none.
pub(crate) const TOKENS: Scenario = Scenario {
    about: "kubeadm lists the one token of init, shows in a dry run what it would store, draws tokens \
            that it does not store, makes one of its own or of one's choice, a Secret of six keys, \
            and refuses what does not have their form; where there is none it lists nothing",
    covers: &[E8, E9, E10, E11, E39],
    profile: Profile::Full,
    limit: secs(300),
    sabotages: &[
        Sabotage::new("second-token")
            .about("another token was made before")
            .inject(steps!(|lab| lab.kubeadm(1).create_token("").await))
            .caught_by(steps!(one_token_is_listed), Cause::NotUnique),
        Sabotage::new("two-days")
            .about("the token was made for two days")
            .inject(steps!(|lab| in_place_of_the_first(lab, "--ttl 48h").await))
            .caught_by(steps!(one_token_is_listed), Cause::OutsideRange),
        Sabotage::new("signs-nothing")
            .about("the token was made for authentication alone")
            .inject(steps!(|lab| in_place_of_the_first(lab, "--usages authentication").await))
            .caught_by(steps!(one_token_is_listed), Cause::WrongAnswer),
        Sabotage::new("another-group")
            .about("the token was made for another group")
            .inject(steps!(|lab| {
                in_place_of_the_first(lab, "--groups system:bootstrappers:others").await
            }))
            .caught_by(steps!(one_token_is_listed), Cause::WrongAnswer),
        Sabotage::new("not-dry")
            .about("a script before kubeadm leaves out --dry-run")
            .inject(steps!(|lab| lab.kubeadm(1).types_otherwise("s/ --dry-run//").await))
            .caught_by(steps!(dry_run_stores_nothing), Cause::Answered),
        Sabotage::new("dry-run-described")
            .about("a script before kubeadm gives each token a description, a seventh key")
            .inject(steps!(|lab| lab.kubeadm(1).types_otherwise(DESCRIBED).await))
            .caught_by(steps!(dry_run_stores_nothing), Cause::WrongAnswer),
        Sabotage::new("kubeconfig-is-there")
            .about("the other node has the administrator's kubeconfig")
            .inject(steps!(give_node2_a_kubeconfig))
            .caught_by(steps!(dry_run_needs_a_kubeconfig), Cause::Answered),
        Sabotage::new("generated-and-made")
            .about("a script before kubeadm makes the token that is to be drawn")
            .inject(steps!(|lab| lab.kubeadm(1).types_otherwise("s/generate/create/").await))
            .caught_by(steps!(generated_is_not_stored), Cause::Answered),
        Sabotage::new("deleted")
            .about("the token is deleted as soon as it is made")
            .inject(steps!(|lab| {
                let token = lab.kubeadm(1).create_token("").await?;
                lab.kubeadm(1).run(&format!("token delete {}", token.id)).await?;
                lab.keep(token);
                Ok(())
            }))
            .caught_by(steps!(|lab| is_stored(lab, &lab.kept()?).await), Cause::Absent),
        Sabotage::new("opaque")
            .about("the token is in a Secret of no type of its own")
            .inject(steps!(|lab| {
                let token = lab.kubeadm(1).create_token("").await?;
                make_opaque(lab, &token).await?;
                lab.keep(token);
                Ok(())
            }))
            .caught_by(steps!(|lab| is_stored(lab, &lab.kept()?).await), Cause::WrongAnswer),
        Sabotage::new("another-value")
            .about("a script before kubeadm forgets the value that is given to it")
            .inject(steps!(|lab| {
                let forget = "s/create [^ ]*/create/";
                lab.keep(draw(lab).await?);
                lab.kubeadm(1).types_otherwise(forget).await
            }))
            .caught_by(steps!(|lab| made_as_chosen(lab, &lab.kept()?).await), Cause::WrongAnswer),
        Sabotage::new("dry-run-of-another")
            .about("a script before kubeadm forgets the value that it is to try")
            .inject(steps!(|lab| {
                let forget = "s/create [^ ]* --dry-run/create --dry-run/";
                lab.keep(draw(lab).await?);
                lab.kubeadm(1).types_otherwise(forget).await
            }))
            .caught_by(
                steps!(|lab| dry_run_of_the_chosen(lab, &lab.kept()?).await),
                Cause::WrongAnswer,
            ),
        Sabotage::new("one-is-left")
            .about("init's token is still there")
            .caught_by(steps!(none_is_listed), Cause::Answered),
        Sabotage::new("written-small")
            .about("a script before kubeadm writes in small letters what is given to it")
            .inject(steps!(|lab| lab.kubeadm(1).types_otherwise(r"s/.*/\L&/").await))
            .caught_by(steps!(wrong_forms_are_refused), Cause::Answered),
    ],
    ..Scenario::new("bootstrap_tokens", StageName::Init, steps!(tokens))
};

/// To sed(1).
const DESCRIBED: &str = "s/token create/& --description more/";

async fn tokens(lab: &Lab) -> anyhow::Result<()> {
    one_token_is_listed(lab).await?;
    dry_run_stores_nothing(lab).await?;
    dry_run_needs_a_kubeconfig(lab).await?;
    generated_is_not_stored(lab).await?;

    lab.step("kubeadm token create makes one of its own");
    let made = lab.kubeadm(1).create_token("").await?;
    is_stored(lab, &made).await?;

    let chosen = draw(lab).await?;
    dry_run_of_the_chosen(lab, &chosen).await?;
    made_as_chosen(lab, &chosen).await?;
    wrong_forms_are_refused(lab).await?;

    lab.step("delete every token, as their time would (E8)");
    for id in lab.stored_tokens().await? {
        lab.kubeadm(1).run(&format!("token delete {id}")).await?;
    }
    none_is_listed(lab).await
}

async fn one_token_is_listed(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kubeadm token list has init's token, and no other (E8)");
    Ok(one_of_a_day(&lab.kubeadm(1).run("token list").await?.stdout)?)
}

/// In what `kubeadm token list` prints: TOKEN, TTL, EXPIRES, USAGES, DESCRIPTION, EXTRA GROUPS.
fn one_of_a_day(table: &str) -> Result<(), Failure> {
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(columns).collect();
    ensure!(!rows.is_empty(), Absent, "a token to be listed", "{table}");
    let [row] = rows.as_slice() else {
        return Err(fails!(NotUnique, "one token to be listed", "{table}"));
    };
    let [token, ttl, _, usages, _, groups] = row.as_slice() else {
        return Err(fails!(Other, "six columns", "{table}"));
    };
    ensure!(Token::parse(token).is_some(), WrongAnswer, "a token", "{token}");
    ensure!(under_a_day(ttl), OutsideRange, "less than 24 h to live", "{ttl}");
    let both = *usages == "authentication,signing";
    ensure!(both, WrongAnswer, "both usages", "{usages}");
    ensure!(*groups == GROUP, WrongAnswer, "the group {GROUP}", "{groups}");
    Ok(())
}

/// Columns have three spaces between them at least, and one at most in them.
fn columns(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect()
}

/// A duration as kubeadm shows it, `23h`; from 24 hours on it counts days.
fn under_a_day(shown: &str) -> bool {
    let number = |unit: char| shown.strip_suffix(unit)?.parse::<u32>().ok();
    number('h').is_some_and(|hours| hours < 24) || number('m').or_else(|| number('s')).is_some()
}

/// Another token instead of init's.
async fn in_place_of_the_first(lab: &Lab, made: &str) -> anyhow::Result<()> {
    let first = lab.first_token().await?;
    lab.kubeadm(1).run(&format!("token delete {}", first.id)).await?;
    lab.kubeadm(1).create_token(made).await.map(drop)
}

async fn none_is_listed(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kubeadm token list prints nothing where there is no token (E8)");
    let listed = lab.kubeadm(1).run("token list").await?.stdout;
    ensure_none!(listed.lines(), Answered, "no output");
    Ok(())
}

async fn dry_run_stores_nothing(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kubeadm token create --dry-run prints a Secret, and stores none (E9)");
    dry_run(lab, "token create --dry-run").await.map(drop)
}

async fn dry_run_of_the_chosen(lab: &Lab, value: &Token) -> anyhow::Result<()> {
    lab.step("a dry run of a chosen value prints that one's Secret, and stores none (E9)");
    let printed = dry_run(lab, &format!("token create {value} --dry-run")).await?;
    ensure!(printed == *value, WrongAnswer, "exactly {value}", "{printed}");
    Ok(())
}

/// The token that it prints, with its Secret.
async fn dry_run(lab: &Lab, arguments: &str) -> anyhow::Result<Token> {
    let before = lab.stored_tokens().await?;
    let printed = lab.kubeadm(1).run(arguments).await?.stdout;
    let after = lab.stored_tokens().await?;
    ensure!(after == before, Answered, "no token stored but {before:?}", "{after:?}");
    let token = printed.lines().last().and_then(Token::parse);
    let token = token.with_context(|| format!("no token at the end of {printed:?}"))?;
    lab.node(1).write_secret("/root/printed.yaml", secret_in(&printed)).await?;
    let shown = lab.kubectl(format!("create --dry-run=client -f /root/printed.yaml {SHOW}"));
    is_secret_of(&token, &shown.await?.stdout)?;
    Ok(token)
}

async fn dry_run_needs_a_kubeconfig(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a dry run asks the API: without a kubeconfig there is none (E9)");
    let answer = lab.kubeadm(2).run("token create --dry-run").may_fail().await?;
    let expected = "no dry run on node2, which has no kubeconfig";
    Ok(assert::refused(&answer, "failed to load kubeconfig", expected)?)
}

async fn give_node2_a_kubeconfig(lab: &Lab) -> anyhow::Result<()> {
    let admin = lab.node(1).run("cat /etc/kubernetes/admin.conf").await?.stdout;
    lab.node(2).write_secret("/etc/kubernetes/admin.conf", admin).await
}

async fn generated_is_not_stored(lab: &Lab) -> anyhow::Result<()> {
    lab.step("kubeadm token generate prints 6.16 characters, and stores nothing (E10)");
    let before = lab.stored_tokens().await?;
    draw(lab).await?;
    let after = lab.stored_tokens().await?;
    ensure!(after == before, Answered, "no token stored but {before:?}", "{after:?}");
    Ok(())
}

async fn draw(lab: &Lab) -> anyhow::Result<Token> {
    let drawn = lab.kubeadm(1).run("token generate").await?;
    let token = Token::parse(drawn.text());
    let wrong = || fails!(WrongAnswer, "a token, 6.16 characters", "{drawn}");
    Ok(token.ok_or_else(wrong)?)
}

async fn made_as_chosen(lab: &Lab, value: &Token) -> anyhow::Result<()> {
    lab.step("kubeadm token create VALUE makes exactly that one (E39)");
    let made = lab.kubeadm(1).create_token(&value.to_string()).await?;
    ensure!(made == *value, WrongAnswer, "exactly {value}", "{made}");
    is_stored(lab, value).await
}

async fn is_stored(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    let name = token.secret_name();
    lab.step(format!("it is stored: a Secret {name} of six keys (E11, E39)"));
    let get = format!("-n kube-system get secret {name} --ignore-not-found {SHOW}");
    let shown = lab.kubectl(get).await?.stdout;
    ensure!(!shown.is_empty(), Absent, "a Secret {name}", "none");
    Ok(is_secret_of(token, &shown)?)
}

/// A Secret's type cannot be changed, so it is made anew.
async fn make_opaque(lab: &Lab, token: &Token) -> anyhow::Result<()> {
    let name = token.secret_name();
    let get = format!("-n kube-system get secret {name} -o yaml");
    let manifest = lab.kubectl(get).await?.stdout;
    let opaque = manifest.replace("type: bootstrap.kubernetes.io/token", "type: Opaque");
    lab.node(1).write_secret("/root/opaque.yaml", opaque).await?;
    lab.kubectl("replace --force -f /root/opaque.yaml").await.map(drop)
}

/// None has two halves of six and sixteen small letters and digits.
const WRONG_FORMS: [&str; 4] =
    ["abcdef", "ABCDEF.0123456789ABCDEF", "abcdef-0123456789abcdef", "abcdef.0123456789abcde"];

async fn wrong_forms_are_refused(lab: &Lab) -> anyhow::Result<()> {
    lab.step("a value of another form is refused (E39)");
    for wrong in WRONG_FORMS {
        let answer = lab.kubeadm(1).run(&format!("token create {wrong}")).may_fail().await?;
        let expected = format!("{wrong} to be refused for its form");
        assert::refused(&answer, "was not of the form", &expected)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "TOKEN                     TTL         EXPIRES                USAGES                   \
        DESCRIPTION                                                EXTRA GROUPS\n";
    const ROW: &str = "fa4nxo.yyesb8ei9irf3itn   23h         2020-01-30T17:26:57Z   authentication,signing   \
        The default bootstrap token generated by 'kubeadm init'.   \
        system:bootstrappers:kubeadm:default-node-token\n";

    #[test]
    fn a_list_of_one_token_is_told_from_others() {
        assert_eq!(one_of_a_day(&format!("{HEAD}{ROW}")), Ok(()));
        let cause = |rows: &str| one_of_a_day(&format!("{HEAD}{rows}")).unwrap_err().cause;
        assert_eq!(cause(""), Cause::Absent);
        assert_eq!(cause(&format!("{ROW}{ROW}")), Cause::NotUnique);
        assert_eq!(cause(&ROW.replace("23h", "2d ")), Cause::OutsideRange);
        assert_eq!(cause(&ROW.replace("23h", "<forever>")), Cause::OutsideRange);
        assert_eq!(cause(&ROW.replace(",signing", "        ")), Cause::WrongAnswer);
        assert_eq!(cause(&ROW.replace("default-node-token", "others")), Cause::WrongAnswer);
    }
}
