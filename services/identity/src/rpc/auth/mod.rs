//! The RPCs of AuthService, each in the room of its subject.

mod change_password;
mod introspect;
mod login;
mod password;
mod second_factor;
mod sign_up;
mod token;

use api::identity::v1::{
    ChangePasswordRequest, ChangePasswordResponse, CheckSessionRequest, CheckSessionResponse, ConfirmTotpRequest,
    ConfirmTotpResponse, DisableTotpRequest, DisableTotpResponse, EnrollTotpRequest, EnrollTotpResponse,
    ExchangeApiKeyRequest, ExchangeApiKeyResponse, GetPermissionSetRequest, GetPermissionSetResponse,
    GetSigningKeysRequest, GetSigningKeysResponse, IntrospectTokenRequest, IntrospectTokenResponse, LoginRequest,
    LoginResponse, LogoutRequest, LogoutResponse, RefreshTokenRequest, RefreshTokenResponse,
    RegenerateRecoveryCodesRequest, RegenerateRecoveryCodesResponse, RequestPasswordResetRequest,
    RequestPasswordResetResponse, ResetPasswordRequest, ResetPasswordResponse, SignUpRequest, SignUpResponse,
    SwitchOrganizationRequest, SwitchOrganizationResponse, VerifyEmailRequest, VerifyEmailResponse,
    auth_service_server::AuthService,
};
use tonic::{Request, Response, Status};

use super::Identity;

#[tonic::async_trait]
impl AuthService for Identity {
    async fn sign_up(&self, request: Request<SignUpRequest>) -> Result<Response<SignUpResponse>, Status> {
        sign_up::sign_up(self, request).await
    }

    async fn verify_email(
        &self,
        request: Request<VerifyEmailRequest>,
    ) -> Result<Response<VerifyEmailResponse>, Status> {
        sign_up::verify_email(self, request).await
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        login::login(self, request).await
    }

    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<RefreshTokenResponse>, Status> {
        login::refresh_token(self, request).await
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        login::logout(self, request).await
    }

    async fn switch_organization(
        &self,
        request: Request<SwitchOrganizationRequest>,
    ) -> Result<Response<SwitchOrganizationResponse>, Status> {
        login::switch_organization(self, request).await
    }

    async fn exchange_api_key(
        &self,
        request: Request<ExchangeApiKeyRequest>,
    ) -> Result<Response<ExchangeApiKeyResponse>, Status> {
        token::exchange_api_key(self, request).await
    }

    async fn request_password_reset(
        &self,
        request: Request<RequestPasswordResetRequest>,
    ) -> Result<Response<RequestPasswordResetResponse>, Status> {
        password::request_password_reset(self, request).await
    }

    async fn reset_password(
        &self,
        request: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        password::reset_password(self, request).await
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        change_password::change_password(self, request).await
    }

    async fn enroll_totp(&self, request: Request<EnrollTotpRequest>) -> Result<Response<EnrollTotpResponse>, Status> {
        second_factor::enroll_totp(self, request).await
    }

    async fn confirm_totp(
        &self,
        request: Request<ConfirmTotpRequest>,
    ) -> Result<Response<ConfirmTotpResponse>, Status> {
        second_factor::confirm_totp(self, request).await
    }

    async fn disable_totp(
        &self,
        request: Request<DisableTotpRequest>,
    ) -> Result<Response<DisableTotpResponse>, Status> {
        second_factor::disable_totp(self, request).await
    }

    async fn regenerate_recovery_codes(
        &self,
        request: Request<RegenerateRecoveryCodesRequest>,
    ) -> Result<Response<RegenerateRecoveryCodesResponse>, Status> {
        second_factor::regenerate_recovery_codes(self, request).await
    }

    async fn introspect_token(
        &self,
        request: Request<IntrospectTokenRequest>,
    ) -> Result<Response<IntrospectTokenResponse>, Status> {
        introspect::introspect_token(self, request).await
    }

    async fn get_signing_keys(
        &self,
        request: Request<GetSigningKeysRequest>,
    ) -> Result<Response<GetSigningKeysResponse>, Status> {
        token::get_signing_keys(self, request).await
    }

    async fn get_permission_set(
        &self,
        request: Request<GetPermissionSetRequest>,
    ) -> Result<Response<GetPermissionSetResponse>, Status> {
        token::get_permission_set(self, request).await
    }

    async fn check_session(
        &self,
        request: Request<CheckSessionRequest>,
    ) -> Result<Response<CheckSessionResponse>, Status> {
        token::check_session(self, request).await
    }
}
