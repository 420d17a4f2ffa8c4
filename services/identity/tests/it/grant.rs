//! Whatever is granted and scoped: what a key may do is what both its scopes and its owner's role allow, and nothing else.

use api::{identity::v1::*, policy::PERMISSIONS};
use kit::auth::PermissionSet;

use crate::house::House;

/// Numbers that follow from a seed (SplitMix64), so that a failure can be repeated.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    /// A grant near one of the registry's permissions: any of its segments may be a wildcard.
    fn grant(&mut self) -> String {
        let permission = PERMISSIONS[self.below(PERMISSIONS.len())];
        let segments: Vec<&str> = permission
            .split('.')
            .map(|segment| if self.below(3) == 0 { "*" } else { segment })
            .collect();
        segments.join(".")
    }

    fn grants(&mut self, least: usize) -> Vec<String> {
        (0..least + self.below(5)).map(|_| self.grant()).collect()
    }
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_and_its_owner_both_may_whatever_they_are() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let viewer = house.colleague(&ada, "grace", "viewer").await;
    let mut draw = Draw(4_711);
    let role = house.create_role(ada.token(), "drawn", &[]).await.unwrap();
    let account = house.service_account(ada.token(), "drawn", "drawn").await.unwrap();
    // Made while both could do everything; what the role allows changes afterwards.
    let role = house.update_role(ada.token(), &role, &["*.*.*"]).await.unwrap();
    let mut keys = Vec::new();
    for _ in 0..12 {
        let scopes = draw.grants(1);
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let of_account = house.key_of(ada.token(), &account.id, &scopes).await.unwrap();
        let of_ada = house.key(ada.token(), &scopes).await.unwrap();
        keys.extend([of_account, of_ada].map(|made| made.api_key.unwrap()));
    }
    house
        .sql(&format!(
            "update organization_members set role_org_id = org_id, role_id = '{}' where user_id = '{}'",
            role.id, ada.user
        ))
        .await;
    for round in 0..8 {
        let grants = draw.grants(0);
        let mut written: Vec<&str> = grants.iter().map(String::as_str).collect();
        // Who asks and writes goes on being able to.
        written.extend(["identity.permission.read", "identity.role.write"]);
        house
            .sql(&format!(
                "delete from permissions where role_id = '{id}';
                 insert into permissions select '{org}', '{id}', unnest(array['{grants}']) on conflict do nothing",
                id = role.id,
                org = ada.org,
                grants = written.join("','"),
            ))
            .await;
        let owner = PermissionSet::resolve(&written);
        for key in &keys {
            let told = house
                .peer()
                .get_permission_set(GetPermissionSetRequest {
                    organization_id: ada.org.clone(),
                    principal_kind: PrincipalKind::ApiKey.into(),
                    principal_id: key.id.clone(),
                })
                .await
                .unwrap()
                .into_inner();
            let both = PermissionSet::resolve(&key.scopes).intersection(&owner);
            let both: Vec<&str> = both.names().collect();
            assert_eq!(
                told.permissions, both,
                "round {round}: {written:?} and {:?}",
                key.scopes
            );
            let shown = house
                .effective(viewer.token(), PrincipalKind::ApiKey, &key.id)
                .await
                .unwrap();
            assert_eq!(shown.permissions, both);
        }
    }
}

#[tokio::test]
async fn nobody_gives_beyond_their_own_whatever_is_drawn() {
    let house = House::open().await;
    let ada = house.person("ada").await;
    let mut draw = Draw(1_848);
    for round in 0..12 {
        let mut grants = draw.grants(1);
        grants.extend(["identity.role.write", "identity.api_key.write"].map(str::to_owned));
        let own: Vec<&str> = grants.iter().map(String::as_str).collect();
        let maker = house.key(ada.token(), &own).await.unwrap().secret;
        let held = PermissionSet::resolve(&own);
        for attempt in 0..4 {
            let wanted = draw.grants(1);
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let beyond = PermissionSet::resolve(&wanted).beyond(&held);
            let role = house.create_role(&maker, &format!("r{round}-{attempt}"), &wanted).await;
            let key = house.key(&maker, &wanted).await;
            // Whoever is let has nothing that the giver lacks; whoever lacks something is not let.
            if !beyond.is_empty() {
                assert!(role.is_err() && key.is_err(), "{own:?} gives {wanted:?}");
            }
            assert_eq!(role.is_ok(), key.is_ok(), "{own:?} gives {wanted:?}");
            let within = wanted.iter().all(|wanted| own.contains(wanted));
            assert!(!within || role.is_ok(), "{own:?} does not give {wanted:?}");
        }
    }
}
