drop function login_account(text, uuid), session_state(uuid), api_key_state(uuid), api_key_by_public_id(text),
  invitation_org(uuid);
