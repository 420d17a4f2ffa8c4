//! The table of policies, which the build makes from the protos.

use api::policy::{Scope, find};

#[test]
fn the_table_holds_what_the_protos_declare() {
    let method = find("/board3.designs.v1.DesignService/CreateDesign").expect("CreateDesign is declared");
    assert_eq!(
        (method.scope, method.permission, method.audited, method.takes_request_id),
        (Scope::Organization, "designs.design.write", true, true)
    );
    assert!(find("/board3.designs.v1.DesignService/Nothing").is_none());
    assert!(
        !find("/board3.audit.v1.AuditService/ListAuditLogs")
            .expect("declared")
            .takes_request_id
    );
}
